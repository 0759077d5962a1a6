"""Writes fixtures/macs.json: multiply-accumulates of torchvision's detectors by part, as torch counts them.

torch.utils.flop_counter counts two flops a multiply-accumulate. Nothing is computed (device meta), so the
second stage is counted on its own, for the stated number of proposals. Stages begin as `stage_of` has them.
"""

import json
import pathlib

import torch
from torch.utils.flop_counter import FlopCounterMode
from torch import nn
from torchvision.models.detection import (
    FasterRCNN,
    fasterrcnn_mobilenet_v3_large_320_fpn,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from make_state_dicts import features_case, untouched

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
NONE = {"weights": None, "weights_backbone": None}
ROIS = 1000


def layers13():
    backbone = resnet_fpn_backbone(backbone_name="resnet34", weights=None, returned_layers=[1, 3])
    anchors = AnchorGenerator(((32,), (128,), (256,)), ((0.5, 1.0, 2.0),) * 3)
    return FasterRCNN(backbone, num_classes=4, rpn_anchor_generator=anchors)


CASES = {
    "fasterrcnn_resnet50_fpn": (lambda: fasterrcnn_resnet50_fpn(**NONE), (800, 1088), ROIS),
    "fasterrcnn_resnet50_fpn_v2": (lambda: fasterrcnn_resnet50_fpn_v2(**NONE), (800, 1088), ROIS),
    "resnext50_32x4d": (
        lambda: FasterRCNN(resnet_fpn_backbone(backbone_name="resnext50_32x4d", weights=None), 91),
        (800, 800),
        ROIS,
    ),
    "resnet34_layers13": (layers13, (800, 928), ROIS),
    "fasterrcnn_mobilenet_v3_large_320_fpn": (lambda: fasterrcnn_mobilenet_v3_large_320_fpn(**NONE), (320, 416), 150),
    "mobilenet_v3_small_features": (lambda: untouched(features_case("mobilenet_v3_small")), (800, 800), ROIS),
    "mobilenet_v2": (lambda: untouched(features_case("mobilenet_v2")), (800, 800), ROIS),
    "vgg16": (lambda: untouched(features_case("vgg16")), (800, 1088), ROIS),
    "vgg11_bn": (lambda: untouched(features_case("vgg11_bn")), (800, 800), ROIS),
}


def stage_of(body):
    """The name of the stage of each module: of a ResNet its layers and the stem; of a MobileNet `stageN`, which begins
    where the resolution is halved and with the last module; of a VGG `convN`, which ends with its pooling."""
    names, last, pools = list(body), len(body) - 1, 0
    is_vgg = any(isinstance(m, nn.MaxPool2d) for m in body.values()) and "0" in body
    stage, found = -1, {}
    for i, name in enumerate(names):
        if is_vgg:
            found[name] = f"conv{pools + 1}"
            pools += isinstance(body[name], nn.MaxPool2d)
        elif name.isdecimal():
            stage += i in (0, last) or getattr(body[name], "_is_cn", False)
            found[name] = f"stage{stage}"
        else:
            found[name] = name if name.startswith("layer") else "stem"
    return found


def macs(model, size, rois):
    """Of each part; the body is counted stage by stage."""

    def count(module, *inputs):
        with FlopCounterMode(display=False) as counter:
            output = module(*inputs)
        return counter.get_total_flops() // 2, output

    pyramid = hasattr(model.backbone, "fpn")
    body = dict((model.backbone.body if pyramid else model.backbone).named_children())
    x, parts, outputs, stages = torch.empty(1, 3, *size), {}, {}, stage_of(body)
    for name, module in body.items():
        flops, x = count(module, x)
        outputs[name] = x
        parts[stages[name]] = parts.get(stages[name], 0) + flops
    features = {"0": x}
    if pyramid:
        inputs = {new: outputs[old] for old, new in model.backbone.body.return_layers.items()}
        parts["fpn"], features = count(model.backbone.fpn, inputs)
    parts["rpn"], _ = count(model.rpn.head, list(features.values()))
    channels = model.backbone.out_channels
    pooled = torch.empty(rois, channels, *model.roi_heads.box_roi_pool.output_size)
    parts["box head"], vectors = count(model.roi_heads.box_head, pooled)
    parts["predictor"], _ = count(model.roi_heads.box_predictor, vectors)
    return parts


def main():
    found = {}
    with torch.device("meta"), torch.no_grad():
        for name, (make, size, rois) in CASES.items():
            found[name] = {"image_size": size, "rois": rois, "macs": macs(make().eval(), size, rois)}
    text = json.dumps(found, indent=1)
    (FIXTURES / "macs.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
