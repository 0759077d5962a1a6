"""One step of torchvision's training, stage by stage, with the sampling fixed."""

import copy
from types import SimpleNamespace
from unittest import mock

import torch
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.roi_heads import (
    fastrcnn_loss,
    keypointrcnn_loss,
    keypoints_to_heatmap,
    maskrcnn_loss,
)
from torchvision.models.detection.rpn import concat_box_prediction_layers

from make_models import build

LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")


class FirstSampler(BalancedPositiveNegativeSampler):
    """torchvision's sampler with ``arange`` for ``randperm``; keeps what it took, per image."""

    def __call__(self, labels):
        with mock.patch("torch.randperm", torch.arange):
            self.masks = super().__call__(labels)
        self.positive, self.negative = ([torch.where(mask)[0] for mask in kind] for kind in self.masks)
        return self.masks


def training(case):
    model = build(case).train()
    for part, options in ((model.rpn, "rpn"), (model.roi_heads, "box")):
        size = case["options"][f"{options}_batch_size_per_image"]
        part.fg_bg_sampler = FirstSampler(size, part.fg_bg_sampler.positive_fraction)
    return model


def step(model, images, targets):
    """One training step of a copy of ``model``, the same calls as GeneralizedRCNN.forward: stages by
    name, losses, and what is needed to judge them."""
    model, out = copy.deepcopy(model), {}
    rpn, heads = model.rpn, model.roi_heads
    batch, targets = model.transform(images, targets)
    out["transform.images"], out["transform.sizes"] = batch.tensors, torch.tensor(batch.image_sizes)
    features = model.backbone(batch.tensors)
    if isinstance(features, torch.Tensor):
        features = {"0": features}
    for name, feature in features.items():
        out[f"features.{name}"] = feature

    objectness, deltas = rpn.head(list(features.values()))
    for level, (o, d) in enumerate(zip(objectness, deltas)):
        out[f"rpn.objectness.{level}"], out[f"rpn.deltas.{level}"] = o, d
    per_level = [o[0].numel() for o in objectness]
    anchors = rpn.anchor_generator(batch, list(features.values()))
    objectness, deltas = concat_box_prediction_layers(objectness, deltas)
    boxes = rpn.box_coder.decode(deltas.detach(), anchors).view(len(anchors), -1, 4)
    proposals, _ = rpn.filter_proposals(boxes, objectness, batch.image_sizes, per_level)
    labels, matched = rpn.assign_targets_to_anchors(anchors, targets)
    codes = rpn.box_coder.encode(matched, anchors)
    losses = dict(zip(LOSSES, rpn.compute_loss(objectness, deltas, labels, codes)))
    for i, target in enumerate(targets):
        out[f"targets.{i}.boxes"] = target["boxes"]
        out[f"rpn.positive.{i}"] = torch.where(labels[i] == 1)[0]
        out[f"rpn.ignored.{i}"] = torch.where(labels[i] == -1)[0]
        positive = out[f"rpn.sampled_positive.{i}"] = rpn.fg_bg_sampler.positive[i]
        out[f"rpn.sampled_negative.{i}"] = rpn.fg_bg_sampler.negative[i]
        out[f"rpn.regression_targets.{i}"] = codes[i][positive]

    truth = [t["boxes"] for t in targets]
    joined = heads.add_gt_proposals(proposals, truth)
    matched, labels = heads.assign_targets_to_proposals(joined, truth, [t["labels"] for t in targets])
    chosen, chosen_matched, chosen_labels, codes = heads.select_training_samples(proposals, targets)
    out["pooled"] = heads.box_roi_pool(features, chosen, batch.image_sizes)
    if len(heads.box_roi_pool.scales) > 1:
        out["roi.levels"] = heads.box_roi_pool.map_levels(chosen)
    out["box_head"] = heads.box_head(out["pooled"])
    out["class_logits"], out["box_regression"] = heads.box_predictor(out["box_head"])
    found = fastrcnn_loss(out["class_logits"], out["box_regression"], chosen_labels, codes)
    losses |= zip(LOSSES[2:], found)
    positive = [torch.where(labels > 0)[0] for labels in chosen_labels]
    boxes = [b[p] for b, p in zip(chosen, positive)]
    objects = [m[p] for m, p in zip(chosen_matched, positive)]
    if heads.has_mask():
        pooled = heads.mask_roi_pool(features, boxes, batch.image_sizes)
        out["mask_logits"] = heads.mask_predictor(heads.mask_head(pooled))
        masks, classes = [t["masks"] for t in targets], [t["labels"] for t in targets]
        losses["loss_mask"] = maskrcnn_loss(out["mask_logits"], boxes, masks, classes, objects)
    if heads.has_keypoint():
        pooled = heads.keypoint_roi_pool(features, boxes, batch.image_sizes)
        out["keypoint_logits"] = heads.keypoint_predictor(heads.keypoint_head(pooled))
        points = [t["keypoints"] for t in targets]
        losses["loss_keypoint"] = keypointrcnn_loss(out["keypoint_logits"], boxes, points, objects)
        for i, (b, p, o) in enumerate(zip(boxes, points, objects)):
            side = out["keypoint_logits"].shape[-1]
            out[f"keypoint.places.{i}"], out[f"keypoint.valid.{i}"] = keypoints_to_heatmap(p[o], b, side)
    for i in range(len(images)):
        out[f"proposals.{i}"], out[f"roi.labels.{i}"], out[f"roi.matched_idxs.{i}"] = joined[i], labels[i], matched[i]
        out[f"roi.sampled.{i}"] = torch.where(heads.fg_bg_sampler.masks[0][i] | heads.fg_bg_sampler.masks[1][i])[0]
        out[f"roi.regression_targets.{i}"] = codes[i][chosen_labels[i] > 0]
    stages = {name: value.detach() for name, value in out.items()}
    return SimpleNamespace(model=model, stages=stages, losses=losses, anchors=anchors, per_level=per_level)


def run(model, images, targets):
    """A step with ``values`` of the losses and ``gradients`` of their sum."""
    found = step(model, images, targets)
    found.values = {name: loss.item() for name, loss in found.losses.items()}
    sum(found.losses.values()).backward()
    found.gradients = {n: p.grad for n, p in found.model.named_parameters() if p.requires_grad}
    return found


def descend(model, images, targets, sgd, count):
    """Values of the losses before each of some steps of SGD."""
    model, values = copy.deepcopy(model), []
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], **sgd)
    for _ in range(count):
        losses = model(images, targets)
        values.append({name: loss.item() for name, loss in losses.items()})
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    return values
