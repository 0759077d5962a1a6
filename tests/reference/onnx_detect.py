"""Detects objects with a file of ``rcnn export`` in ONNX Runtime and writes what ``rcnn detect --format json`` writes.

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
import onnx
import onnxruntime
import torch
from PIL import Image


def resized(path, min_size, max_size):
    """A picture as the file takes it, [3, H, W] from 0 to 1, and its own height and width."""
    pixels = np.asarray(Image.open(path).convert("RGB"), np.float32) / np.float32(255)
    pixels = torch.from_numpy(pixels).permute(2, 0, 1)
    height, width = pixels.shape[1:]
    scale = min(min_size / min(height, width), max_size / max(height, width))
    pixels = torch.nn.functional.interpolate(
        pixels[None], scale_factor=scale, mode="bilinear", recompute_scale_factor=True, align_corners=False
    )
    return pixels[0].numpy(), (height, width)


def check(path):
    onnx.checker.check_model(path, full_check=True)
    model = onnx.shape_inference.infer_shapes(onnx.load(path), check_type=True, strict_mode=True, data_prop=True)
    domains = {node.domain for node in model.graph.node}
    assert domains <= {"", "ai.onnx"}, domains
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"Loop", "If", "Scan", "SplitToSequence", "SequenceAt"}, kinds
    return {entry.key: entry.value for entry in model.metadata_props}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--arrays", help="write the outputs of the first batch to this .npz")
    parser.add_argument("images", nargs="+")
    args = parser.parse_args()
    metadata = check(args.model)
    names = json.loads(metadata["classes"])
    min_size, max_size = json.loads(metadata["min_size"])[-1], int(metadata["max_size"])
    session = onnxruntime.InferenceSession(args.model, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    results = []
    for start in range(0, len(args.images), args.batch):
        paths = args.images[start : start + args.batch]
        pictures = [resized(path, min_size, max_size) for path in paths]
        sizes = np.array([picture.shape[1:] for picture, _ in pictures], np.int64)
        noise = np.random.default_rng(0)
        images = noise.random((len(paths), 3, *sizes.max(0)), np.float32)
        for image, (picture, _) in zip(images, pictures):
            image[:, : picture.shape[1], : picture.shape[2]] = picture
        given = {"images": images}
        if len(paths) > 1:
            given["image_sizes"] = sizes
        found = dict(zip(outputs, session.run(None, given)))
        if args.arrays and start == 0:
            np.savez(args.arrays, **given, **{f"out/{name}": value for name, value in found.items()})
        for i, (path, (_, original)) in enumerate(zip(paths, pictures)):
            mine = found["image_index"] == i
            ratio = np.array(original[::-1] * 2, np.float32) / sizes[i][[1, 0, 1, 0]].astype(np.float32)
            rows = zip(found["boxes"][mine] * ratio, found["labels"][mine], found["scores"][mine])
            detections = [
                {"box": box.tolist(), "label": int(label), "name": names[label] if names else str(label), "score": float(score)}
                for box, label, score in rows
            ]
            results.append({"image": path, "detections": detections})
    json.dump(results, sys.stdout, indent=1)


main()
