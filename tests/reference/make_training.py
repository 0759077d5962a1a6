"""Writes fixtures/train_<case>.safetensors and .json: torchvision's losses in training mode and the
gradient of their sum by every parameter, on the rule's weights and images.

    python make_training.py [CASE ...]            writes all cases, or those named
    python make_training.py --measure [CASE ...]  only prints what the gains are chosen by
    python make_training.py --search CASE         tries image suffixes until the case is robust

Sampling is fixed, not random: `FirstSampler` takes the first positives and the first negatives by
index, in torchvision's numbers. The ground truth is `ground_truth` of the case's own proposals.
"""

import argparse
import copy
import json
import math
from types import SimpleNamespace
from unittest import mock

import torch
from safetensors.torch import save
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import box_iou

import cases
from make_models import FIXTURES, ROBUST_NOISE, build, noisy, pictures, rounded, sampled

LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
LOSS_SHIFT = 1e-5  # relative, of a loss under ROBUST_NOISE
IOU_MARGIN = 1e-5  # of an IoU to a threshold, and of a best IoU to the next
SIDES = (0, 48, 80, 120, 1000)  # bounds of sqrt(area) in which ground truth is looked for
GRADIENT_KEEP, MAP_KEEP = 64, 256
TRAINING = {
    "rpn_pre_nms_top_n_train": 200,
    "rpn_post_nms_top_n_train": 100,
    "rpn_batch_size_per_image": 64,
    "box_batch_size_per_image": 64,
}


def case(name, arch, images, gains, norm="frozen", boxes=(6, 5)):
    """``boxes`` is how many ground-truth boxes each image gets."""
    images = [(n, *size) for n, size in zip(images, ((90, 141), (150, 100)))]
    found = cases.case(f"train_{name}", arch, 4, images, gains, TRAINING, norm)
    return {**found, "trainable_layers": 3, "boxes": list(boxes)}


CASES = [
    case(
        "resnet18_frozen", "resnet18", ("train18/a~0", "train18/b~0"),
        cases.gains(0.25, 0.0625, 0.25, 0.25, fpn=cases.HIGH),
    ),
    case(
        "resnet18_batchnorm", "resnet18", ("train18/a~0", "train18/b~0"),
        cases.gains(0.25, 0.0625, 0.25, 0.25, fpn=cases.HIGH), norm="batch",
    ),
    case(
        "resnet18_empty", "resnet18", ("empty/a~0", "empty/b~0"),
        cases.gains(0.25, 0.0625, 0.25, 0.25, fpn=cases.HIGH), boxes=(6, 0),
    ),
    case(
        "resnet50_frozen", "resnet50", ("train50/a~0", "train50/b~0"),
        cases.gains(0.5, 0.0625, 2.0, 0.25, fpn=cases.HIGH),
    ),
    case(
        "resnet50_batchnorm", "resnet50", ("train50/a~0", "train50/b~0"),
        cases.gains(0.5, 0.0625, 2.0, 0.25, fpn=cases.HIGH), norm="batch",
    ),
]


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
    chosen, _, chosen_labels, codes = heads.select_training_samples(proposals, targets)
    out["pooled"] = heads.box_roi_pool(features, chosen, batch.image_sizes)
    out["roi.levels"] = heads.box_roi_pool.map_levels(chosen)
    out["box_head"] = heads.box_head(out["pooled"])
    out["class_logits"], out["box_regression"] = heads.box_predictor(out["box_head"])
    found = fastrcnn_loss(out["class_logits"], out["box_regression"], chosen_labels, codes)
    losses |= zip(LOSSES[2:], found)
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


@torch.no_grad()
def ground_truth(case, model):
    """Boxes near the case's own proposals, of several sizes: of the proposals whose side is in one
    of the ranges, the first that overlaps no box chosen before, narrowed by a tenth on the left and
    an eighth at the top, in quarter pixels of the picture. In f64, so that no rounding is in doubt."""
    images = [i.double() for i in pictures(case)]
    none = [{"boxes": torch.zeros(0, 4).double(), "labels": torch.zeros(0).long()} for _ in images]
    stages = step(copy.deepcopy(model).double(), images, none).stages
    targets = []
    for i, (image, wanted) in enumerate(zip(images, case["boxes"])):
        size = torch.tensor(image.shape[-2:]).flip(0).repeat(2)
        boxes = stages[f"proposals.{i}"] / stages["transform.sizes"][i].flip(0).repeat(2) * size
        sides = (stages[f"proposals.{i}"][:, 2:] - stages[f"proposals.{i}"][:, :2]).prod(1).sqrt()
        taken, candidates = torch.zeros(0, 4).double(), []
        for _ in range(2):
            candidates += [torch.where((low <= sides) & (sides < high))[0].tolist() for low, high in zip(SIDES, SIDES[1:])]
        for indices in candidates:
            for index in indices:
                box = boxes[index].clone()
                box[:2] += (box[2:] - box[:2]) * torch.tensor([0.1, 0.125])
                box = (box * 4).round() / 4
                if len(taken) < wanted and (box[2:] - box[:2]).min() > 4 and (box_iou(box[None], taken) < 0.4).all():
                    taken = torch.cat([taken, box[None]])
                    break
        targets.append({"boxes": taken.float(), "labels": torch.arange(len(taken)) % (case["num_classes"] - 1) + 1})
    return targets


def doubled(targets):
    return [{"boxes": t["boxes"].double(), "labels": t["labels"]} for t in targets]


def iou_margin(found):
    """The least distance of an IoU to a threshold, and of a best IoU to one that is not equal."""
    least = math.inf
    for i, anchors in enumerate(found.anchors):
        truth = found.stages[f"targets.{i}.boxes"]
        for boxes, thresholds in ((anchors, (0.3, 0.7)), (found.stages[f"proposals.{i}"][: -len(truth)], (0.5,))):
            if not len(truth):
                continue
            iou = box_iou(truth, boxes)
            best = iou.max(0).values
            for threshold in thresholds:
                least = min(least, (best - threshold).abs().min().item())
            rival = best - torch.where(iou < best, iou, -1).max(0).values  # of boxes, for those that may match
            least = min(least, rival[best > 0.3].min().item())
            highest = iou.max(1, keepdim=True).values
            least = min(least, (highest - torch.where(iou < highest, iou, -1)).min().item())
    return least


def compare(a, b):
    """(sampling agrees, worst relative change of a loss, of a gradient's norm, of a gradient's largest)."""
    for name in a.stages:
        decision = name.startswith("rpn.") and name.split(".")[1] in ("positive", "ignored", "sampled_positive", "sampled_negative")
        if (decision or name.startswith(("roi.s", "roi.l", "roi.m"))) and not torch.equal(a.stages[name], b.stages[name]):
            return False, math.inf, math.inf, math.inf
    losses = max(abs(a.values[n] - b.values[n]) / abs(a.values[n]) for n in LOSSES)
    norm = largest = 0.0
    for name, gradient in a.gradients.items():
        gradient, shift = gradient.double(), b.gradients[name].double() - gradient.double()
        norm = max(norm, (shift.norm() / gradient.norm()).item())
        largest = max(largest, (shift.abs().max() / gradient.abs().max()).item())
    return True, losses, norm, largest


def margins(model, images, targets, found):
    """How far the case is from another sampling; raises if it is not robust."""
    result = {"iou": rounded(iou_margin(found))}
    if result["iou"] < IOU_MARGIN:
        raise ValueError(f"an IoU within {result['iou']:g} of another decision")
    double = run(copy.deepcopy(model).double(), [i.double() for i in images], doubled(targets))
    changes = {"f64": compare(found, double)}
    noises = [compare(found, run(noisy(model, ROBUST_NOISE, seed), images, targets)) for seed in range(3)]
    changes["noise"] = tuple(map(max, zip(*noises))) if all(n[0] for n in noises) else (False,) + (math.inf,) * 3
    for name, (agree, losses, norm, largest) in changes.items():
        if not agree or losses > LOSS_SHIFT:
            raise ValueError(f"{name} samples differently or moves a loss ({losses:.3g})")
        result[name] = {"loss": rounded(losses), "gradient_norm": rounded(norm), "gradient_largest": rounded(largest)}
    result["noise"]["relative"] = ROBUST_NOISE
    return result, double


def counts(found):
    """Anchors and RoIs by label, for each image."""
    stages, ends = found.stages, torch.tensor(found.per_level).cumsum(0)
    images = []
    for i, anchors in enumerate(found.anchors):
        positive, ignored = stages[f"rpn.positive.{i}"], stages[f"rpn.ignored.{i}"]
        levels = torch.bucketize(stages[f"rpn.sampled_positive.{i}"], ends, right=True)
        chosen = stages[f"roi.labels.{i}"][stages[f"roi.sampled.{i}"]]
        images.append({
            "anchors": {"all": len(anchors), "positive": len(positive), "ignored": len(ignored)},
            "sampled_positive_by_level": levels.bincount(minlength=len(ends)).tolist(),
            "sampled_negative": len(stages[f"rpn.sampled_negative.{i}"]),
            "proposals": len(stages[f"proposals.{i}"]),
            "rois_positive": int((stages[f"roi.labels.{i}"] > 0).sum()),
            "sampled_rois_by_label": chosen.bincount(minlength=4).tolist(),
        })
    return images


def describe(model, images, targets):
    """Losses, counts, and the norm of each loss's gradient over the body, the pyramid, the heads."""
    found = step(model, images, targets)
    lines = []
    for name, loss in found.losses.items():
        parameters = [(n, p) for n, p in found.model.named_parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss, [p for _, p in parameters], retain_graph=True, allow_unused=True)
        norms = []
        for part in ("backbone.body", "backbone.fpn", "rpn", "roi_heads"):
            of_part = [g for (n, _), g in zip(parameters, gradients) if n.startswith(part) and g is not None]
            norms.append(f"{math.sqrt(sum(g.square().sum().item() for g in of_part)):.3g}")
        lines.append(f"  {name} {loss.item():.4g}, gradient {norms}")
    levels = found.stages["roi.levels"].bincount().tolist()
    return "\n".join(lines + [f"  {c}" for c in counts(found)] + [f"  RoIs by level {levels}"])


def search(case):
    """Tries one image-name suffix after another."""
    model = training(case)
    names = [i["name"].split("~")[0] for i in case["images"]]
    for suffix in range(40):
        for image, name in zip(case["images"], names):
            image["name"] = f"{name}~{suffix}"
        images, targets = pictures(case), ground_truth(case, model)
        try:
            print(f"{case['case']}: ~{suffix}", margins(model, images, targets, run(model, images, targets))[0], flush=True)
            print(describe(model, images, targets), flush=True)
            return
        except ValueError as error:
            print(f"{case['case']}: ~{suffix}: {error}", flush=True)


def write(case):
    model, images = training(case), pictures(case)
    targets = ground_truth(case, model)
    found = run(model, images, targets)
    whole = copy.deepcopy(model)(images, targets)
    assert all(whole[name].item() == found.values[name] for name in LOSSES), "stages differ from the model"
    margin, double = margins(model, images, targets, found)
    record = {
        **case,
        "sampler": "first",
        "targets": [{k: v.tolist() for k, v in t.items()} for t in targets],
        "losses": found.values,
        "losses_f64": double.values,
        "counts": counts(found),
        "margins": margin,
        "frozen": [n for n, p in model.named_parameters() if not p.requires_grad],
        "gradient_norms": {n: g.double().norm().item() for n, g in found.gradients.items()},
        "gradient_norms_f64": {n: g.norm().item() for n, g in double.gradients.items()},
    }
    maps = {n: v for n, v in found.stages.items() if v.is_floating_point() and v.numel() > 512}
    others = {n: v for n, v in found.stages.items() if n not in maps}
    gradients = {f"gradient.{n}": g for n, g in found.gradients.items()}
    norms = [n for n, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    buffers = dict(found.model.named_buffers())
    after = {f"after.{n}.{b}": buffers[f"{n}.{b}"] for n in (norms[0], norms[len(norms) // 2], norms[-1])
             for b in ("running_mean", "running_var")} if norms else {}
    data = save(sampled(maps | after, MAP_KEEP) | sampled(others) | sampled(gradients, GRADIENT_KEEP))
    (FIXTURES / f"{case['case']}.json").write_text(json.dumps(record, indent=1) + "\n")
    (FIXTURES / f"{case['case']}.safetensors").write_bytes(data)
    print(f"{case['case']}: {len(data)} bytes; {found.values}; {margin}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--search", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(2)
    unknown = set(args.cases) - {c["case"] for c in CASES}
    if unknown:
        parser.error(f"no such case: {sorted(unknown)}")
    for case in CASES:
        if args.cases and case["case"] not in args.cases:
            continue
        if args.measure:
            model = training(case)
            print(case["case"], describe(model, pictures(case), ground_truth(case, model)), sep="\n", flush=True)
        else:
            (search if args.search else write)(case)


if __name__ == "__main__":
    main()
