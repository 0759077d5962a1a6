"""Writes fixtures/train_<case>.safetensors and .json: torchvision's losses in training mode and the
gradient of their sum by every parameter, on the rule's weights and images.

    python make_training.py [CASE ...]            writes all cases, or those named
    python make_training.py --measure [CASE ...]  only prints what the gains are chosen by
    python make_training.py --search CASE         tries image suffixes until the case is robust

Sampling is fixed, not random: the first positives and the first negatives by index, in torchvision's
numbers (`FirstSampler`). The ground truth is made of the case's own proposals (`ground_truth`).
"""

import argparse
import copy
import json
import math
import re

import torch
from safetensors.torch import save
from torchvision.ops import box_iou

from make_models import FIXTURES, ROBUST_NOISE, ROBUST_SHIFT, noisy, pictures, rounded, sampled
from masks import counts, ellipses
from synthetic import signed
from training_cases import CASES, ON_EDGE
from training_step import descend, run, step, training

ROUNDING = 1e-7  # relative weight noise that moves results as another order of summation does
LOSS_SHIFT = 2e-5  # relative, of a loss under ROBUST_NOISE
STEP_SHIFT = 2e-5  # the same under ROUNDING, after some steps of SGD
GRADIENT_SHIFT = 2e-4  # relative, of a gradient under ROUNDING
NOISE_SHIFT = 1e-4  # the same under ROBUST_NOISE, a tenth of what the tests allow, but of those ON_EDGE
NOTHING = 1e-6  # of the largest gradient's norm: what rounding leaves of a gradient that is zero
IOU_MARGIN = 1e-5  # of an IoU to a threshold, and of a best IoU to the next
SIDES = (14, 22, 40, 75, 110, 1000)  # bounds of sqrt(area) in which ground truth is looked for
GRADIENT_KEEP, MAP_KEEP = 64, 256


@torch.no_grad()
def ground_truth(case, model):
    """Boxes near the case's own proposals, of several sizes: of the proposals whose side is in one
    of the ranges, the first that overlaps no box chosen before, narrowed by a tenth on the left and
    an eighth at the top, in quarter pixels of the picture. In f64, so that no rounding is in doubt."""
    images = [i.double() for i in pictures(case)]
    none = [{"boxes": torch.zeros(0, 4).double(), "labels": torch.zeros(0).long()} for _ in images]
    for i, target in enumerate(none):
        add_shapes(case, i, target)
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
    for i, target in enumerate(targets):
        add_shapes(case, i, target)
    return targets


def add_shapes(case, i, target):
    """Masks and keypoints of the objects of an image, where the case has such branches: the ellipse in each box, and
    points in and around it, in quarter pixels, hidden ones and those without a label among them."""
    branches, (image, boxes) = case.get("branches", {}), (case["images"][i], target["boxes"])
    if "mask" in branches:
        target["masks"] = ellipses(boxes, image["height"], image["width"])
    if "keypoint" in branches:
        count = branches["keypoint"]["num_keypoints"]
        place = torch.from_numpy(signed(f"{image['name']}/keypoints", (len(boxes), count, 2))) * 0.55 + 0.5
        points = boxes[:, None, :2] + place * (boxes[:, None, 2:] - boxes[:, None, :2])
        points = (points * 4).round() / 4
        visibility = (torch.arange(len(boxes) * count) % 4).clamp(max=2).view(len(boxes), count, 1).float()
        target["keypoints"] = torch.cat([points, visibility * case["visible"][i]], 2)


def written(target):
    """A target as it is stored."""
    shapes = {"masks": lambda masks: [counts(mask) for mask in masks]}
    return {name: shapes.get(name, torch.Tensor.tolist)(value) for name, value in target.items()}


def doubled(targets):
    return [{k: v.double() if v.is_floating_point() else v for k, v in t.items()} for t in targets]


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


def change(value, other):
    """Relative to the value; of one that is 0 the difference."""
    return abs(value - other) / (abs(value) or 1)


def compare(a, b, shift):
    """What changed between two runs; raises if one samples differently or a gradient moves far."""
    box = 0.0
    for name, value in a.stages.items():
        decision = not value.is_floating_point()
        if decision and not torch.equal(value, b.stages[name]) or value.shape != b.stages[name].shape:
            raise ValueError(f"another {name}")
        if name.startswith("proposals"):
            box = max(box, (value.double() - b.stages[name].double()).abs().max().item())
    loss, worst = max((change(value, b.values[n]), n) for n, value in a.values.items())
    if box > ROBUST_SHIFT or loss > LOSS_SHIFT:
        raise ValueError(f"a proposal moves by {box:.3g} px, {worst} by {loss:.3g} of itself")
    norm = largest = 0.0
    nothing = NOTHING * max(gradient.norm() for gradient in a.gradients.values())
    for name, gradient in a.gradients.items():
        if gradient.norm() <= nothing:
            if not is_silent(name, a.values):
                raise ValueError(f"no gradient of {name}")
            continue
        moved = b.gradients[name].double() - gradient.double()
        norm = max(norm, (moved.norm() / gradient.double().norm()).item())
        largest = max(largest, (moved.abs().max() / gradient.abs().max()).item())
    if max(norm, largest) > shift:
        raise ValueError(f"a gradient moves by {norm:.3g} of its norm, {largest:.3g} of its largest element")
    return {k: rounded(v) for k, v in zip(("box_px", "loss", "gradient_norm", "gradient_largest"), (box, loss, norm, largest))}


def is_silent(name, values):
    """Whether a parameter has no gradient: it is of a branch without anything to learn, whose loss is zero, or is the
    bias of the heat maps, which softmax cancels, or of a MobileNetV2's projection, which the next batch norm does."""
    if name.endswith("kps_score_lowres.bias") or re.fullmatch(r"backbone\.\d+\.conv\.[23]\.bias", name):
        return True
    return any(values.get(f"loss_{branch}") == 0 and branch in name for branch in ("mask", "keypoint"))


def steps(case, model, images, targets):
    """Losses before each of some steps of SGD; raises if rounding moves one far."""
    values = descend(model, images, targets, **case["steps"])
    for noise in (noisy(model, ROUNDING, seed) for seed in range(3)):
        for i, (a, b) in enumerate(zip(values, descend(noise, images, targets, **case["steps"]))):
            loss, worst = max((change(value, b[n]), n) for n, value in a.items())
            if loss > STEP_SHIFT:
                raise ValueError(f"in step {i} {worst} moves by {loss:.3g} of itself")
    return values


def margins(case, model, images, targets, found):
    """How far the case is from another sampling and from other gradients; raises if it is not robust. Changes of
    losses and gradients are relative, of a gradient to its norm and to its largest element."""
    iou = iou_margin(found)
    if iou < IOU_MARGIN:
        raise ValueError(f"an IoU within {iou:.3g} of another decision")

    def worst(noise, shift):
        models = (noisy(model, noise, seed) for seed in range(3))
        found_changes = [compare(found, run(m, images, targets), shift) for m in models]
        return {"relative": noise} | {k: max(c[k] for c in found_changes) for k in found_changes[0]}

    noise_shift = math.inf if case["case"] in ON_EDGE else NOISE_SHIFT
    result = {"iou": rounded(iou), "rounding": worst(ROUNDING, GRADIENT_SHIFT), "noise": worst(ROBUST_NOISE, noise_shift)}
    double = run(copy.deepcopy(model).double(), [i.double() for i in images], doubled(targets))
    return result | {"f64": compare(found, double, GRADIENT_SHIFT)}, double


def summary(found):
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
    levels = found.stages["roi.levels"].bincount().tolist() if "roi.levels" in found.stages else "-"
    return "\n".join(lines + [f"  {c}" for c in summary(found)] + [f"  RoIs by level {levels}"])


def covers(found):
    """Whether the sampled positives come from four levels (or all, of fewer) and all classes, and all are sampled
    once."""
    images = summary(found)
    levels = torch.tensor([c["sampled_positive_by_level"] for c in images])
    labels = torch.tensor([c["sampled_rois_by_label"] for c in images])
    whole = any(0 < c["rois_positive"] <= 16 for c in images)  # then with the ground truth, which comes last
    return whole and (levels.sum(0) > 0).sum() >= min(4, levels.shape[1]) and (labels.sum(0) > 0).all()


def search(case):
    """Tries one image-name suffix after another."""
    model = training(case)
    names = [i["name"].split("~")[0] for i in case["images"]]
    for suffix in range(40):
        for image, name in zip(case["images"], names):
            image["name"] = f"{name}~{suffix}"
        images, targets = pictures(case), ground_truth(case, model)
        found = run(model, images, targets)
        try:
            if not covers(found):
                raise ValueError("not all levels and classes")
            margin = margins(case, model, images, targets, found)[0]
            after = [steps(case, model, images, targets)] if "steps" in case else []
            print(f"{case['case']}: ~{suffix}", margin, *after, flush=True)
            print(describe(model, images, targets), flush=True)
            return
        except ValueError as error:
            print(f"{case['case']}: ~{suffix}: {error}", flush=True)


def write(case):
    model, images = training(case), pictures(case)
    targets = ground_truth(case, model)
    found = run(model, images, targets)
    whole = copy.deepcopy(model)(images, targets)
    assert {n: loss.item() for n, loss in whole.items()} == found.values, "stages differ from the model"
    margin, double = margins(case, model, images, targets, found)
    record = {
        **case,
        "sampler": "first",
        "targets": [written(target) for target in targets],
        "losses": found.values,
        "losses_f64": double.values,
        "counts": summary(found),
        "margins": margin,
        "frozen": [n for n, p in model.named_parameters() if not p.requires_grad],
        "gradient_norms": {n: g.double().norm().item() for n, g in found.gradients.items()},
        "gradient_norms_f64": {n: g.norm().item() for n, g in double.gradients.items()},
    }
    if "steps" in case:
        record["losses_of_steps"] = steps(case, model, images, targets)
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
