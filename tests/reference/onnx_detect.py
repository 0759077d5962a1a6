"""Detects objects with a file of ``rcnn export`` and writes what ``rcnn detect --format json`` writes.

    rcnn export model.bpk -o model.onnx
    python onnx_detect.py model.onnx --batch 3 picture.png ... > onnx.json
    rcnn detect --weights model.bpk --format json picture.png ... > rcnn.json
    python compare_detections.py onnx.json rcnn.json

The file is first checked by onnx's checker and by its shape inference, both strict. A batch holds pictures
of any sizes: each is resized by itself and put into the upper left corner, around which there is noise.
"""

import argparse
import json
import sys

import numpy as np
from PIL import Image

from onnx_runtimes import SESSIONS, Exported


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--runtime", choices=SESSIONS, default="onnxruntime")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("images", nargs="+")
    args = parser.parse_args()
    exported = Exported(args.model, args.runtime)
    results = []
    for start in range(0, len(args.images), args.batch):
        paths = args.images[start : start + args.batch]
        pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
        for path, found in zip(paths, exported(pictures)):
            rows = zip(found["boxes"], found["labels"], found["scores"])
            names = exported.names
            detections = [
                {"box": box.tolist(), "label": int(label), "name": names[label] if names else str(label), "score": float(score)}
                for box, label, score in rows
            ]
            for detection, points in zip(detections, found.get("keypoints", [])):
                detection["keypoints"] = points.tolist()
            results.append({"image": path, "detections": detections})
    json.dump(results, sys.stdout, indent=1)


main()
