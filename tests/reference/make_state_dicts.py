"""Writes fixtures/state_dicts.json: names and shapes of torchvision's detectors, by architecture."""

import json
import pathlib
from unittest import mock

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

from cases import plain
from make_models import build

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


PLAIN = """vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn mobilenet_v2 mobilenet_v3_large
mobilenet_v3_small""".split()


def features_case(arch):
    """A case of torchvision's tutorial: `features` of a classifier, one map."""
    options, model = plain(800, 1333), {"arch": arch, "norm": "own", "variant": "features", "num_classes": 91}
    return {**model, "options": options, "gains": {}}


def untouched(case):
    """The model of a case, without the rule's weights."""
    with mock.patch("synthetic.fill", lambda model, *_: model):
        return build(case)


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
        for arch in PLAIN:
            name = f"{arch}_features" if "v3" in arch else arch
            found[name] = shapes(untouched(features_case(arch)))
    text = json.dumps(found, separators=(",", ":"))
    (FIXTURES / "state_dicts.json").write_text(text + "\n")
    print(len(text), {k: len(v) for k, v in found.items()})


if __name__ == "__main__":
    main()
