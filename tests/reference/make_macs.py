"""Writes fixtures/macs.json: multiply-accumulates of torchvision's detectors by part, as torch counts them.

torch.utils.flop_counter counts two flops a multiply-accumulate. Nothing is computed (device meta), so the
second stage is counted on its own, for the stated number of proposals.
"""

import json
import pathlib

import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn, fasterrcnn_resnet50_fpn_v2
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
NONE = {"weights": None, "weights_backbone": None}
ROIS = 1000


def layers13():
    backbone = resnet_fpn_backbone(backbone_name="resnet34", weights=None, returned_layers=[1, 3])
    anchors = AnchorGenerator(((32,), (128,), (256,)), ((0.5, 1.0, 2.0),) * 3)
    return FasterRCNN(backbone, num_classes=4, rpn_anchor_generator=anchors)


CASES = {
    "fasterrcnn_resnet50_fpn": (lambda: fasterrcnn_resnet50_fpn(**NONE), (800, 1088)),
    "fasterrcnn_resnet50_fpn_v2": (lambda: fasterrcnn_resnet50_fpn_v2(**NONE), (800, 1088)),
    "resnext50_32x4d": (
        lambda: FasterRCNN(resnet_fpn_backbone(backbone_name="resnext50_32x4d", weights=None), 91),
        (800, 800),
    ),
    "resnet34_layers13": (layers13, (800, 928)),
}


def macs(model, size):
    """Of each part; the body is counted stage by stage."""

    def count(module, *inputs):
        with FlopCounterMode(display=False) as counter:
            output = module(*inputs)
        return counter.get_total_flops() // 2, output

    body = model.backbone.body
    x, parts, outputs = torch.empty(1, 3, *size), {}, {}
    for name, module in body.items():
        flops, x = count(module, x)
        outputs[name] = x
        name = name if name.startswith("layer") else "stem"
        parts[name] = parts.get(name, 0) + flops
    inputs = {new: outputs[old] for old, new in body.return_layers.items()}
    parts["fpn"], features = count(model.backbone.fpn, inputs)
    parts["rpn"], _ = count(model.rpn.head, list(features.values()))
    channels = model.backbone.out_channels
    pooled = torch.empty(ROIS, channels, *model.roi_heads.box_roi_pool.output_size)
    parts["box head"], vectors = count(model.roi_heads.box_head, pooled)
    parts["predictor"], _ = count(model.roi_heads.box_predictor, vectors)
    return parts


def main():
    found = {}
    with torch.device("meta"), torch.no_grad():
        for name, (make, size) in CASES.items():
            found[name] = {"image_size": size, "rois": ROIS, "macs": macs(make().eval(), size)}
    text = json.dumps(found, indent=1)
    (FIXTURES / "macs.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
