"""Says what AP torchvision has with the weights of a small Mask or Keypoint R-CNN on a split of COCO's layout, and what
pycocotools makes of the detections of `rcnn eval`, so that a difference lies in the model or in the evaluation.

    rcnn eval --weights W.pth --data DATA --split val --output report
    python torchvision_ap.py --weights W.pth --data DATA --split val --min-size 256 --max-size 256 \\
        --detections report/detections.json

The network is a ResNet-18 or 34 under a pyramid, with a TwoMLPHead; channels, classes and layers are those of the
weights, which are cast to f32.
"""

import argparse
import contextlib
import io
import json
import pathlib

import numpy as np
import torch
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.models import resnet
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from torchvision_detect import pixels

FILES = {"segm": "instances", "bbox": "instances", "keypoints": "person_keypoints"}


def build(state, arch, **options):
    """The model that fits a state dict."""
    shape = {name: tuple(tensor.shape) for name, tensor in state.items()}
    channels = shape["backbone.fpn.layer_blocks.0.0.weight"][0]
    size, pooled = shape["roi_heads.box_head.fc6.weight"]
    classes = shape["roi_heads.box_predictor.cls_score.weight"][0]
    levels = {f"layer{i + 1}": str(i) for i in range(4)}
    body = getattr(resnet, arch)(weights=None)
    backbone = BackboneWithFPN(body, levels, [64, 128, 256, 512], channels)
    head, predictor = TwoMLPHead(pooled, size), FastRCNNPredictor(size, classes)
    model = FasterRCNN(backbone, box_head=head, box_predictor=predictor, **options)
    heads, names = model.roi_heads, list(levels.values())

    def widths(prefix):
        layers = [s[0] for name, s in shape.items() if name.startswith(prefix) and name.endswith("weight") and len(s) == 4]
        return tuple(layers)

    if "roi_heads.mask_predictor.conv5_mask.weight" in shape:
        layers, reduced = widths("roi_heads.mask_head."), shape["roi_heads.mask_predictor.conv5_mask.weight"][1]
        heads.mask_roi_pool = MultiScaleRoIAlign(names, 14, 2)
        heads.mask_head = MaskRCNNHeads(channels, layers, 1)
        heads.mask_predictor = MaskRCNNPredictor(layers[-1], reduced, classes)
    if "roi_heads.keypoint_predictor.kps_score_lowres.weight" in shape:
        layers = widths("roi_heads.keypoint_head.")
        count = shape["roi_heads.keypoint_predictor.kps_score_lowres.weight"][1]
        heads.keypoint_roi_pool = MultiScaleRoIAlign(names, 14, 2)
        heads.keypoint_head = KeypointRCNNHeads(channels, layers)
        heads.keypoint_predictor = KeypointRCNNPredictor(layers[-1], count)
    model.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in state.items()})
    return model.eval()


@torch.no_grad()
def detect(model, truth, folder):
    """COCO's results of all images."""
    results = []
    for image in truth.loadImgs(truth.getImgIds()):
        found = model([pixels(folder / image["file_name"])])[0]
        for i, (x1, y1, x2, y2) in enumerate(found["boxes"].tolist()):
            result = {"image_id": image["id"], "category_id": found["labels"][i].item(), "score": found["scores"][i].item()}
            result["bbox"] = [x1, y1, x2 - x1, y2 - y1]
            if "masks" in found:
                mask = (found["masks"][i, 0] > 0.5).numpy().astype(np.uint8)
                result["segmentation"] = coco_masks.encode(np.asfortranarray(mask))
            if "keypoints" in found:
                result["keypoints"] = found["keypoints"][i].flatten().tolist()
            results.append(result)
    return results


def evaluate(truth, results, kind, sigma):
    """AP, AP50 and AP75."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(json.loads(json.dumps(results, default=bytes.decode))), kind)
        if kind == "keypoints":
            count = len(truth.loadCats(truth.getCatIds())[0]["keypoints"])
            evaluation.params.kpt_oks_sigmas = np.full(count, sigma)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:3]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--split", nargs="+", default=["val"])
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--min-size", type=int, default=800)
    parser.add_argument("--max-size", type=int, default=1333)
    parser.add_argument("--sigma", type=float, default=0.1, help="of every keypoint")
    parser.add_argument("--detections", nargs="+", help="those of `rcnn eval --output`, one file a split")
    args = parser.parse_args()
    state = torch.load(args.weights, map_location="cpu", weights_only=True)
    model = build(state, args.arch, min_size=args.min_size, max_size=args.max_size)
    for i, split in enumerate(args.split):
        kinds = ["bbox"]
        kinds += ["segm"] if model.roi_heads.has_mask() else []
        kinds += ["keypoints"] if model.roi_heads.has_keypoint() else []
        results = None
        for kind in kinds:
            with contextlib.redirect_stdout(io.StringIO()):
                truth = COCO(args.data / "annotations" / f"{FILES[kinds[-1]]}_{split}.json")
            results = results or detect(model, truth, args.data / split)
            sources = {"torchvision": results}
            if args.detections:
                sources["rcnn"] = json.loads(pathlib.Path(args.detections[i]).read_text())
            for source, found in sources.items():
                numbers = " ".join(f"{number:.6f}" for number in evaluate(truth, found, kind, args.sigma))
                print(f"{split} {kind} {source}, {len(found)} detections: {numbers}")


if __name__ == "__main__":
    main()
