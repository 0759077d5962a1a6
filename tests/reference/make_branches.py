"""Writes fixtures/branches.safetensors and .json: torchvision's mask and keypoint branches on the rule's weights and on
the rule's pooled features, with their losses and gradients, and what it makes of their logits.

Tensors are named ``<op>/<case>/<input or output>`` and keep their shapes; branches.json lists every ``<op>/<case>`` with its
scalars. Masks are there as COCO's run lengths, down the columns and beginning with the background.
"""

import json
from functools import partial

import torch
from safetensors.torch import save
from torch import nn
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import (
    keypointrcnn_inference,
    keypointrcnn_loss,
    maskrcnn_inference,
    maskrcnn_loss,
    paste_masks_in_image,
)

import synthetic
from make_models import FIXTURES
from make_ops import SCALARS, TENSORS, put, random_boxes, rule
from masks import counts, ellipses

CHANNELS, CLASSES, KEYPOINTS = 8, 3, 3
HEIGHT, WIDTH = 60, 90


def branch(**parts):
    """A module with these parts under ``roi_heads``, with the rule's weights, in training mode."""
    model = nn.Module()
    model.roi_heads = nn.Module()
    for name, part in parts.items():
        model.roi_heads.add_module(name, part)
    return synthetic.fill(model).train()


def samples(key, images=(2, 1), each=2):
    """Objects of two images, and proposals near them with the index of the object of each."""
    boxes = [random_boxes(f"{key}/{i}", n, extent=60.0) for i, n in enumerate(images)]
    matched = [torch.arange(n).repeat_interleave(each) for n in images]
    moved = [b[m] + rule(f"{key}/moved/{i}", (len(m), 4), -3, 3) for i, (b, m) in enumerate(zip(boxes, matched))]
    return boxes, [m.clamp(min=0) for m in moved], matched


def put_branch(case, scalars, model, pooled, logits, loss, proposals, matched, **others):
    loss.backward()
    gradients = {f"gradient/{n.removeprefix('roi_heads.')}": p.grad for n, p in model.named_parameters()}
    scalars = {"channels": CHANNELS, "classes": CLASSES, "loss": loss.item(), **scalars}
    proposals = {f"proposals.{i}": p for i, p in enumerate(proposals)} | {f"matched.{i}": m for i, m in enumerate(matched)}
    put(case, scalars, pooled=pooled, pooled_grad=pooled.grad[:, :, ::3, ::3], logits=logits[:, :, ::3, ::3], **proposals, **others)
    TENSORS.update({f"{case}/{n}": g.clone() for n, g in gradients.items()})


def masks():
    for name, norm in (("plain", None), ("norm", partial(nn.BatchNorm2d, eps=1e-5))):
        case = f"mask/{name}"
        model = branch(
            mask_head=MaskRCNNHeads(CHANNELS, (8, 6), 1, norm_layer=norm),
            mask_predictor=MaskRCNNPredictor(6, 4, CLASSES),
        )
        boxes, proposals, matched = samples(case)
        targets = [ellipses(b, HEIGHT, WIDTH) for b in boxes]
        labels = [torch.arange(len(b)) % (CLASSES - 1) + 1 for b in boxes]
        pooled = rule(f"{case}/pooled", (sum(map(len, matched)), CHANNELS, 14, 14)).requires_grad_()
        logits = model.roi_heads.mask_predictor(model.roi_heads.mask_head(pooled))
        loss = maskrcnn_loss(logits, proposals, targets, labels, matched)
        found = maskrcnn_inference(logits, [l[m] for l, m in zip(labels, matched)])
        scalars = {
            "norm": norm is not None,
            "labels": [l.tolist() for l in labels],
            "masks": [[counts(m) for m in t] for t in targets],
            "size": [HEIGHT, WIDTH],
        }
        put_branch(case, scalars, model, pooled, logits, loss, proposals, matched, probabilities=torch.cat(found)[:, 0, ::3, ::3])


def keypoints():
    for name, visible in (("all", 1.0), ("some", 0.0)):
        case = f"keypoint/{name}"
        model = branch(
            keypoint_head=KeypointRCNNHeads(CHANNELS, (8, 6)), keypoint_predictor=KeypointRCNNPredictor(6, KEYPOINTS)
        )
        boxes, proposals, matched = samples(case)
        targets = []
        for i, b in enumerate(boxes):
            at = rule(f"{case}/at/{i}", (len(b), KEYPOINTS, 2), 0, 1) * (b[:, None, 2:] - b[:, None, :2]) + b[:, None, :2]
            seen = (rule(f"{case}/seen/{i}", (len(b), KEYPOINTS)) < visible).float() * 2
            targets.append(torch.cat([at, seen[..., None]], 2))
        targets[0][0, 0, :2] = proposals[0][0, 2:]  # on the right and lower edge
        targets[0][0, 1, :2] = proposals[0][0, :2]  # on the left and upper edge
        targets[0][0, :2, 2] = 1
        targets[1][0, 2, :2] = proposals[1][0, 2:] + 1  # outside
        pooled = rule(f"{case}/pooled", (sum(map(len, matched)), CHANNELS, 14, 14)).requires_grad_()
        logits = model.roi_heads.keypoint_predictor(model.roi_heads.keypoint_head(pooled))
        loss = keypointrcnn_loss(logits, proposals, targets, matched)
        # As detections: of every size, below a pixel too.
        found = torch.cat(proposals).clone()
        found[0, 2:] = found[0, :2] + torch.tensor([0.4, 0.7])
        found[1, 2:] = found[1, :2] + torch.tensor([211.3, 128.0])
        at, scores = keypointrcnn_inference(logits.detach(), [found])
        scalars = {"keypoints": [t.tolist() for t in targets]}
        put_branch(
            case, scalars, model, pooled, logits, loss, proposals, matched, boxes=found, found=at[0], scores=scores[0]
        )


def paste():
    waves = rule("paste/waves", (5, 1, 7, 7), 0, 1)
    probabilities = nn.functional.interpolate(waves, size=(28, 28), mode="bicubic").clamp(0, 1)
    boxes = torch.tensor([
        [10.3, 5.7, 80.9, 57.2],
        [-20.0, -9.5, 40.0, 30.0],
        [70.0, 40.0, 300.0, 200.0],
        [50.2, 40.1, 52.0, 41.0],
        [50.0, 40.0, 50.0, 40.0],
    ])
    found = paste_masks_in_image(probabilities, boxes, (HEIGHT, WIDTH))[:, 0]
    for i, (p, b, pasted) in enumerate(zip(probabilities, boxes, found)):
        put(f"paste/{i}", {"size": [HEIGHT, WIDTH], "counts": counts(pasted >= 0.5)}, probabilities=p[0], box=b[None])


def main():
    torch.set_num_threads(2)
    TENSORS.clear(), SCALARS.clear()
    for make in (masks, keypoints, paste):
        make()
    data = save({name: value.detach().contiguous() for name, value in TENSORS.items()})
    (FIXTURES / "branches.safetensors").write_bytes(data)
    lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(SCALARS.items()))
    (FIXTURES / "branches.json").write_text(f"{{\n{lines}\n}}\n")
    print(f"branches: {len(data)} bytes, {len(SCALARS)} cases, {len(TENSORS)} tensors")


if __name__ == "__main__":
    main()
