"""Writes fixtures/<case>.safetensors and .json: every stage of torchvision's detector on the rule's
weights and images.

    python make_models.py [CASE ...]            writes all cases but those of full size, or those named
    python make_models.py --measure [CASE ...]  only prints what the gains are chosen by
    python make_models.py --search CASE         tries image suffixes until the case is robust
"""

import argparse
import copy
import json
import math
import pathlib

import torch
from safetensors.torch import save
from torch import nn
from torchvision import models
from torchvision.models import detection
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn_v2
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import mobilenet_backbone, resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import keypointrcnn_inference, maskrcnn_inference
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d, MultiScaleRoIAlign, poolers, roi_pool
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

import synthetic
from cases import CASES, FULL_SIZE

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
NORMS = {"frozen": FrozenBatchNorm2d, "batch": nn.BatchNorm2d}
ROBUST_NOISE = 1e-6  # relative weight noise that must change no decision
ROBUST_SHIFT = 0.02  # and must not move a box by more than this, in pixels
CHANGED_SHIFT = 1.0  # a box that moves further was decided differently, at any noise
KEEP = 1024  # elements kept of a large tensor


def custom_backbone():
    layers = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()]
    backbone = nn.Sequential(*layers)
    backbone.out_channels = 64
    return backbone


def narrow(case, options):
    """A detector of few channels over the first stages of a ResNet, with the branches of the case."""
    layers, channels, classes = case["returned_layers"], case["out_channels"], case["num_classes"]
    backbone = resnet_fpn_backbone(
        backbone_name=case["arch"], weights=None, norm_layer=NORMS[case["norm"]], returned_layers=layers
    )
    widths = [64 * 2 ** (layer - 1) for layer in layers]
    backbone.fpn = FeaturePyramidNetwork(widths, channels, extra_blocks=LastLevelMaxPool())
    backbone.out_channels = channels
    size = case["representation_size"]
    head, predictor = TwoMLPHead(channels * 49, size), FastRCNNPredictor(size, classes)
    model = FasterRCNN(backbone, box_head=head, box_predictor=predictor, **options)
    heads, levels = model.roi_heads, [str(level) for level in range(4)]
    if mask := case["branches"].get("mask"):
        heads.mask_roi_pool = MultiScaleRoIAlign(levels, 14, 2)
        heads.mask_head = MaskRCNNHeads(channels, mask["layers"], 1)
        heads.mask_predictor = MaskRCNNPredictor(mask["layers"][-1], mask["dim_reduced"], classes)
    if keypoint := case["branches"].get("keypoint"):
        heads.keypoint_roi_pool = MultiScaleRoIAlign(levels, 14, 2)
        heads.keypoint_head = KeypointRCNNHeads(channels, keypoint["layers"])
        heads.keypoint_predictor = KeypointRCNNPredictor(keypoint["layers"][-1], keypoint["num_keypoints"])
    return model


class MultiScaleRoIPool(MultiScaleRoIAlign):
    """RoIPool from one map, with the scale that MultiScaleRoIAlign infers."""

    def forward(self, x, boxes, image_shapes):
        maps = poolers._filter_input(x, self.featmap_names)
        self.scales, self.map_levels = poolers._setup_scales(
            maps, image_shapes, self.canonical_scale, self.canonical_level
        )
        (features,), (scale,) = maps, self.scales
        return roi_pool(features, poolers._convert_to_roi_format(boxes), self.output_size, scale)


POOLERS = {"roi_align": MultiScaleRoIAlign, "roi_pool": MultiScaleRoIPool}

# What FasterRcnnConfig::fasterrcnn_vgg16 has besides its backbone and box head: the paper's.
PAPER = {
    "rpn_anchor_generator": {"sizes": [[128, 256, 512]], "aspect_ratios": [[0.5, 1.0, 2.0]]},
    "rpn_pre_nms_top_n_train": 12000,
    "rpn_pre_nms_top_n_test": 6000,
    "rpn_post_nms_top_n_test": 300,
    "box_roi_pool": {"featmap_names": ["0"], "output_size": [7, 7], "sampling_ratio": 2, "method": "roi_pool"},
    "box_batch_size_per_image": 128,
    "box_nms_thresh": 0.3,
}


def features(case):
    """torchvision's `classifier(...).features`, the last modules left out that `trim` counts, frozen as torchvision
    freezes a MobileNet (`mobilenet_backbone`) and SSD's VGG (`_vgg_extractor`)."""
    options = {"norm_layer": NORMS["frozen"]} if case["norm"] == "frozen" else {}
    backbone = getattr(models, case["arch"])(weights=None, **options).features
    backbone = backbone[: len(backbone) - case.get("trim", 0)]
    begins = [0] + [i for i, m in enumerate(backbone) if getattr(m, "_is_cn", False)] + [len(backbone) - 1]
    pools = [i for i, m in enumerate(backbone) if isinstance(m, nn.MaxPool2d)]
    if pools:
        begins = [0] + pools[:4]
    begins.append(len(backbone))
    for module in backbone[: begins[len(begins) - 1 - case.get("trainable_layers", 3)]]:
        module.requires_grad_(False)
    backbone.out_channels = [m for m in backbone.modules() if isinstance(m, nn.Conv2d)][-1].out_channels
    return backbone


def build(case):
    """The model of a case in eval mode, with the rule's weights."""
    options = copy.deepcopy(case["options"])
    if case["variant"] == "paper":
        options = copy.deepcopy(PAPER) | options
    if "rpn_anchor_generator" in options:
        options["rpn_anchor_generator"] = AnchorGenerator(**options["rpn_anchor_generator"])
    if "box_roi_pool" in options:
        pooler = POOLERS[options["box_roi_pool"].pop("method", "roi_align")]
        options["box_roi_pool"] = pooler(**options["box_roi_pool"])
    if case["variant"] == "v2":
        model = fasterrcnn_resnet50_fpn_v2(
            weights=None, weights_backbone=None, num_classes=case["num_classes"], **options
        )
    elif case["variant"] == "narrow":
        model = narrow(case, options)
    elif case["variant"] == "builder":
        model = getattr(detection, case["arch"])(
            weights=None, weights_backbone=None, num_classes=case["num_classes"], **options
        )
    elif case["variant"] in ("features", "paper"):
        backbone, (height, width) = features(case), options["box_roi_pool"].output_size
        size = case.get("representation_size", 4096 if case["variant"] == "paper" else 1024)
        head = TwoMLPHead(backbone.out_channels * height * width, size)
        predictor = FastRCNNPredictor(size, case["num_classes"])
        model = FasterRCNN(backbone, box_head=head, box_predictor=predictor, **options)
    else:
        if case["variant"] == "custom":
            backbone = custom_backbone()
        elif case["variant"] == "mobilenet":
            backbone = mobilenet_backbone(
                backbone_name=case["arch"],
                weights=None,
                fpn=True,
                norm_layer=NORMS[case["norm"]],
                returned_layers=case.get("returned_layers"),
                trainable_layers=case.get("trainable_layers", 3),
            )
        else:
            backbone = resnet_fpn_backbone(
                backbone_name=case["arch"],
                weights=None,
                norm_layer=NORMS[case["norm"]],
                returned_layers=case.get("returned_layers"),
            )
        model = FasterRCNN(backbone, case["num_classes"], **options)
    return synthetic.fill(model.eval(), case["gains"], case.get("body_bias", 0.0))


def pictures(case):
    return [synthetic.image(i["name"], i["height"], i["width"]) for i in case["images"]]


@torch.no_grad()
def run(model, images):
    """Every stage's output by name, the same calls as GeneralizedRCNN.forward."""
    out = {}
    batch, _ = model.transform(list(images))
    out["transform.images"] = batch.tensors
    out["transform.sizes"] = torch.tensor(batch.image_sizes)

    features = model.backbone(batch.tensors)
    if isinstance(features, torch.Tensor):
        features = {"0": features}
    for name, feature in features.items():
        out[f"features.{name}"] = feature

    levels = list(features.values())
    objectness, deltas = model.rpn.head(levels)
    for level, (o, d) in enumerate(zip(objectness, deltas)):
        out[f"rpn.objectness.{level}"] = o
        out[f"rpn.deltas.{level}"] = d
    anchors = model.rpn.anchor_generator(ImageList(batch.tensors, batch.image_sizes), levels)
    out["rpn.anchors"] = anchors[0]
    counts = [o[0].numel() for o in objectness]
    flat_objectness, flat_deltas = concat_box_prediction_layers(objectness, deltas)
    boxes = model.rpn.box_coder.decode(flat_deltas, anchors).view(len(anchors), -1, 4)
    proposals, scores = model.rpn.filter_proposals(boxes, flat_objectness, batch.image_sizes, counts)
    for i, (p, s) in enumerate(zip(proposals, scores)):
        out[f"proposals.{i}"] = p
        out[f"proposal_scores.{i}"] = s

    heads = model.roi_heads
    pooled = heads.box_roi_pool(features, proposals, batch.image_sizes)
    out["roi.scales"] = torch.tensor(heads.box_roi_pool.scales)
    if len(heads.box_roi_pool.scales) > 1:
        out["roi.levels"] = heads.box_roi_pool.map_levels(proposals)
    out["pooled"] = pooled
    out["box_head"] = heads.box_head(pooled)
    out["class_logits"], out["box_regression"] = heads.box_predictor(out["box_head"])
    boxes, scores, labels = heads.postprocess_detections(
        out["class_logits"], out["box_regression"], proposals, batch.image_sizes
    )
    found = [dict(boxes=b, scores=s, labels=l) for b, s, l in zip(boxes, scores, labels)]
    if heads.has_mask():
        logits = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(features, boxes, batch.image_sizes)))
        for i, masks in enumerate(maskrcnn_inference(logits, labels)):
            out[f"detections.{i}.masks"] = masks[:, 0]  # not pasted
    if heads.has_keypoint():
        pooled = heads.keypoint_roi_pool(features, boxes, batch.image_sizes)
        logits = heads.keypoint_predictor(heads.keypoint_head(pooled))
        for detections, points, scores in zip(found, *keypointrcnn_inference(logits, boxes)):
            detections |= {"keypoints": points, "keypoints_scores": scores}
    found = model.transform.postprocess(found, batch.image_sizes, [tuple(i.shape[-2:]) for i in images])
    for i, detections in enumerate(found):
        for key, value in detections.items():
            out[f"detections.{i}.{key}"] = value
    for i, detections in enumerate(model(list(images))):
        assert all(torch.equal(detections[k], v) for k, v in found[i].items()), "stages differ from the model"
    return out


def difference(a, b):
    """What changed between two runs: (decisions agree, box shift in px, score shift)."""
    shift = {"boxes": 0.0, "scores": 0.0}
    for name in a:
        decision = name.startswith(("proposal", "detections")) or name == "roi.levels"
        if not decision:
            continue
        if a[name].shape != b[name].shape:
            return False, math.inf, math.inf
        if name.endswith("labels") or name == "roi.levels":
            if not torch.equal(a[name], b[name]):
                return False, math.inf, math.inf
        elif a[name].numel():
            kind = "scores" if "scores" in name or "masks" in name else "boxes"
            shift[kind] = max(shift[kind], (a[name].double() - b[name].double()).abs().max().item())
    return shift["boxes"] <= CHANGED_SHIFT, shift["boxes"], shift["scores"]


def noisy(model, noise, seed):
    generator = torch.Generator().manual_seed(seed)
    model = copy.deepcopy(model)
    for p in list(model.parameters()) + [b for b in model.buffers() if b.is_floating_point()]:
        p.data *= 1 + noise * torch.randn(p.shape, generator=generator)
    return model


def tied(out, case):
    """Whether scores that a ranking reads are exactly equal, where order would be arbitrary."""
    top = case["options"].get("rpn_pre_nms_top_n_test", 1000)
    for name, value in out.items():
        if name.startswith("rpn.objectness"):
            for image in value:
                best = image.flatten().sort(descending=True).values[: top + 1]
                if (best[1:] == best[:-1]).any():
                    return True
        elif name.startswith("detections") and name.endswith("scores") and (value[1:] == value[:-1]).any():
            return True
    return False


def margins(case, model, images, out):
    """How far the case is from a changed decision; raises if it is not robust."""
    if tied(out, case):
        raise ValueError("tied scores")
    result = {}
    agree, boxes, scores = difference(out, run(copy.deepcopy(model).double(), [i.double() for i in images]))
    if not agree or boxes > ROBUST_SHIFT:
        raise ValueError(f"f64 decides differently ({boxes:.3g} px)")
    result["f64"] = {"box_px": rounded(boxes), "score": rounded(scores)}
    worst_boxes = worst_scores = 0.0
    for seed in range(3):
        agree, boxes, scores = difference(out, run(noisy(model, ROBUST_NOISE, seed), images))
        if not agree or boxes > ROBUST_SHIFT:
            raise ValueError(f"noise {ROBUST_NOISE:g} decides differently ({boxes:.3g} px)")
        worst_boxes, worst_scores = max(worst_boxes, boxes), max(worst_scores, scores)
    result["noise"] = {"relative": ROBUST_NOISE, "box_px": rounded(worst_boxes), "score": rounded(worst_scores)}
    largest = ROBUST_NOISE
    for noise in (2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4):
        if not all(difference(out, run(noisy(model, noise, seed), images))[0] for seed in range(3)):
            break
        largest = noise
    result["largest_noise_without_change"] = largest
    return result


def rounded(value):
    return float(f"{value:.2e}")


def sampled(out, keep=KEEP):
    """The stored form: ``flat[::stride]`` and the full shape beside it, about ``keep`` elements. The
    stride has no factor in common with a dimension, so that every row, column and channel is met."""
    tensors = {}
    for name, value in out.items():
        full = name.startswith(("proposal", "detections", "class_logits"))
        stride = 1 if full else max(1, math.ceil(value.numel() / keep))
        while stride > 1 and math.gcd(stride, 2 * math.prod(value.shape)) > 1:
            stride += 1
        tensors[name] = value.flatten()[::stride].clone()
        tensors[f"{name}#shape"] = torch.tensor(value.shape, dtype=torch.int64)
        tensors[f"{name}#stride"] = torch.tensor([stride], dtype=torch.int64)
    return tensors


def describe(out):
    def std(prefix):
        return torch.cat([v.flatten() for k, v in out.items() if k.startswith(prefix)]).std().item()

    spread = out["class_logits"].std(0).mean().item()
    labels = [sorted(v.bincount()[v.unique()].tolist(), reverse=True) for k, v in out.items() if k.endswith("labels")]
    levels = out["roi.levels"].bincount().tolist() if "roi.levels" in out else "-"
    proposals = [len(v) for k, v in out.items() if k.startswith("proposals")]
    return (
        f"objectness {std('rpn.objectness'):.2f}, deltas {std('rpn.deltas'):.2f}, logits {std('class_logits'):.2f} "
        f"(within a class {spread:.2f}), regression {std('box_regression'):.2f}, proposals {proposals} "
        f"on levels {levels}, detections by label {labels}"
    )


def search(case):
    """Tries one image-name suffix after another, until the case stands five times the noise."""
    model = build(case)
    names = [i["name"].split("~")[0] for i in case["images"]]
    for suffix in range(60):
        for image, name in zip(case["images"], names):
            image["name"] = f"{name}~{suffix}"
        images = pictures(case)
        out = run(model, images)
        noises = (noisy(model, 5 * ROBUST_NOISE, seed) for seed in range(3))
        if not all(difference(out, run(n, images))[0] for n in noises):
            continue
        try:
            print(f"{case['case']}: ~{suffix}, {margins(case, model, images, out)}, {describe(out)}", flush=True)
            return
        except ValueError:
            continue
    print(f"{case['case']}: none found")


def write(case):
    model, images = build(case), pictures(case)
    out = run(model, images)
    record = {**case, "margins": margins(case, model, images, out)}
    (FIXTURES / f"{case['case']}.json").write_text(json.dumps(record, indent=2) + "\n")
    data = save(sampled(out))
    (FIXTURES / f"{case['case']}.safetensors").write_bytes(data)
    print(f"{case['case']}: {len(data)} bytes; {describe(out)}; {record['margins']}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--search", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(2)
    FIXTURES.mkdir(exist_ok=True)
    unknown = set(args.cases) - {c["case"] for c in CASES + FULL_SIZE}
    if unknown:
        parser.error(f"no such case: {sorted(unknown)}")
    for case in CASES + FULL_SIZE:
        if case["case"] not in args.cases and (args.cases or case in FULL_SIZE):
            continue
        if args.measure:
            print(case["case"], describe(run(build(case), pictures(case))), flush=True)
        elif args.search:
            search(case)
        else:
            write(case)


if __name__ == "__main__":
    main()
