"""Exports a torchvision detector to ONNX, for images of one size: torchvision's own exporter.

    python export_onnx.py --weights model.pth --arch resnet18 --num-classes 4 -o model.onnx picture.png

Takes the options of tests/reference/torchvision_detect.py.
"""

import pathlib
import sys
import warnings

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "reference"))

import torch
import torchvision_detect

OUTPUTS = {"maskrcnn": ["masks"], "keypointrcnn": ["keypoints", "keypoint_scores"]}


def export(model, image, output, kind="fasterrcnn"):
    """Writes a detector's file for images [3, H, W] of this one's size."""
    warnings.simplefilter("ignore")
    torch.onnx.export(
        model,
        ([image],),
        output,
        opset_version=17,
        input_names=["image"],
        output_names=["boxes", "labels", "scores", *OUTPUTS.get(kind, [])],
        dynamo=False,
    )


def main():
    parser = torchvision_detect.parser(__doc__)
    parser.add_argument("-o", "--output", required=True)
    args = parser.parse_args()
    export(torchvision_detect.build(args), torchvision_detect.pixels(args.images[0]), args.output, args.model)


if __name__ == "__main__":
    main()
