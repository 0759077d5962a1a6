"""Detects objects with torchvision and writes what ``rcnn detect --format json`` writes.

    python torchvision_detect.py --weights model.safetensors --arch resnet18 --num-classes 4 \\
        --min-size 240 --max-size 480 --norm batch picture.png > torchvision.json
"""

import argparse
import json
import sys

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torchvision.models.detection import (
    FasterRCNN,
    KeypointRCNN,
    MaskRCNN,
    fasterrcnn_mobilenet_v3_large_320_fpn,
    fasterrcnn_mobilenet_v3_large_fpn,
    fasterrcnn_resnet50_fpn_v2,
    maskrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

MODELS = {"fasterrcnn": FasterRCNN, "maskrcnn": MaskRCNN, "keypointrcnn": KeypointRCNN}
# Functions that choose their backbone themselves.
BUILDERS = {f.__name__: f for f in (fasterrcnn_mobilenet_v3_large_fpn, fasterrcnn_mobilenet_v3_large_320_fpn)}
V2 = {"fasterrcnn": fasterrcnn_resnet50_fpn_v2, "maskrcnn": maskrcnn_resnet50_fpn_v2}


def freeze_norms(module):
    """Puts frozen norms in the place of trainable ones, as the builders do with pretrained weights."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, child.eps))
        else:
            freeze_norms(child)


def build(args):
    if args.v2 and args.model not in V2:
        sys.exit(f"torchvision has no {args.model} of --v2")
    options = {"num_classes": args.num_classes, "box_score_thresh": args.score_thresh}
    sizes = {"min_size": args.min_size, "max_size": args.max_size}
    options |= {name: size for name, size in sizes.items() if size is not None}
    if args.model in BUILDERS:
        model = BUILDERS[args.model](weights=None, weights_backbone=None, **options)
        if args.norm == "frozen":
            freeze_norms(model)
    elif args.v2:
        model = V2[args.model](weights=None, weights_backbone=None, **options)
    else:
        norm = FrozenBatchNorm2d if args.norm == "frozen" else nn.BatchNorm2d
        backbone = resnet_fpn_backbone(backbone_name=args.arch, weights=None, norm_layer=norm)
        model = MODELS[args.model](backbone, **options)
    if args.norm_eps is not None:
        for module in model.modules():
            if isinstance(module, (FrozenBatchNorm2d, nn.BatchNorm2d)):
                module.eps = args.norm_eps
    if args.weights.endswith(".safetensors"):
        state = load_file(args.weights)
    else:
        state = torch.load(args.weights, map_location="cpu", weights_only=True)
        state = state.get("model", state)
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    unexpected = [key for key in unexpected if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        sys.exit(f"{args.weights} does not fit the model; missing {missing}, unexpected {unexpected}")
    return model.eval()


def pixels(path):
    """An image as torchvision takes it: [3, H, W], 0 to 1."""
    pixels = np.asarray(Image.open(path).convert("RGB"), np.float32) / np.float32(255)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def parser(description, has_default=False):
    """The options that `build` takes, and images; `has_default` if weights and images can be left out."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=not has_default, help=".safetensors, .pth or .pt with torchvision's names")
    parser.add_argument("--model", choices=[*MODELS, *BUILDERS], default="fasterrcnn")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--v2", action="store_true", help="fasterrcnn_resnet50_fpn_v2 or maskrcnn_resnet50_fpn_v2")
    parser.add_argument("--num-classes", type=int, default=91, help="the background counts")
    parser.add_argument("--min-size", type=int, help="torchvision's by default")
    parser.add_argument("--max-size", type=int, help="torchvision's by default")
    parser.add_argument("--norm", choices=("frozen", "batch"), default="frozen")
    parser.add_argument("--norm-eps", type=float, help="0 for the published resnet50 weights")
    parser.add_argument("--score-thresh", type=float, default=0.05)
    parser.add_argument("--names", help="a file with a class name per line, background first")
    parser.add_argument("images", nargs="*" if has_default else "+")
    return parser


def main():
    args = parser(__doc__).parse_args()
    names = open(args.names).read().split("\n") if args.names else []
    model, results = build(args), []
    for path in args.images:
        with torch.no_grad():
            found = model([pixels(path)])[0]
        detections = [
            {"box": box, "label": label, "name": names[label] if label < len(names) else str(label), "score": score}
            for box, label, score in zip(*(found[key].tolist() for key in ("boxes", "labels", "scores")))
        ]
        results.append({"image": path, "detections": detections})
    json.dump(results, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
