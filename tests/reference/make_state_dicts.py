"""Writes fixtures/state_dicts.json: names and shapes of torchvision's detectors, by architecture."""

import json
import pathlib

import torch
from torchvision.models.detection import (
    FasterRCNN,
    fasterrcnn_mobilenet_v3_large_fpn,
    fasterrcnn_resnet50_fpn_v2,
    keypointrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
DETECTORS = (
    fasterrcnn_resnet50_fpn_v2,
    fasterrcnn_mobilenet_v3_large_fpn,
    maskrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
    keypointrcnn_resnet50_fpn,
)
ARCHS = """resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x8d resnext101_64x4d
wide_resnet50_2 wide_resnet101_2""".split()


def shapes(model):
    return {k: list(v.shape) for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}


def main():
    with torch.device("meta"):
        found = {
            arch: shapes(FasterRCNN(resnet_fpn_backbone(backbone_name=arch, weights=None), num_classes=91))
            for arch in ARCHS
        }
        for build in DETECTORS:
            found[build.__name__] = shapes(build(weights=None, weights_backbone=None, num_classes=91))
    text = json.dumps(found, separators=(",", ":"))
    (FIXTURES / "state_dicts.json").write_text(text + "\n")
    print(len(text), {k: len(v) for k, v in found.items()})


if __name__ == "__main__":
    main()
