"""Writes masks.json: what pycocotools and torch make of masks.

    pip install pycocotools==2.0.11 torch && python make_masks.py
"""

import json
from pathlib import Path

import numpy as np
import torch
from pycocotools import mask

rng = np.random.default_rng(17)


def polygon_case(polygons, height, width):
    polygons = [[float(v) for v in p] for p in polygons]
    rle = mask.merge(mask.frPyObjects(polygons, height, width))
    return {"size": [height, width], "polygons": polygons, "rle": rle["counts"].decode(),
            "area": int(mask.area(rle)), "bbox": mask.toBbox(rle).tolist()}


def polygons():
    for corners in [3, 4, 5, 8, 20] * 6:
        height, width = map(int, rng.integers(5, 60, 2))
        # Half of them reach out of the image.
        low, high = (0, 1) if corners % 2 else (-0.4, 1.4)
        xy = rng.uniform(low, high, (corners, 2)) * [width, height]
        yield polygon_case([np.round(xy, int(rng.integers(0, 4))).ravel()], height, width)
    for _ in range(20):
        height, width = map(int, rng.integers(10, 40, 2))
        parts = [rng.uniform(0, 1, (int(rng.integers(3, 7)), 2)) * [width, height] for _ in range(3)]
        yield polygon_case([np.round(p, 2).ravel() for p in parts], height, width)
    # The whole image, one pixel, a line, a point, corners twice, and halves of pixels.
    yield polygon_case([[0, 0, 9, 0, 9, 7, 0, 7]], 7, 9)
    yield polygon_case([[3, 3, 4, 3, 4, 4, 3, 4]], 7, 9)
    yield polygon_case([[1, 1, 6, 5, 1, 1]], 7, 9)
    yield polygon_case([[2, 2, 2, 2, 2, 2]], 7, 9)
    yield polygon_case([[1, 1, 1, 1, 6, 1, 6, 6, 6, 6, 1, 6]], 7, 9)
    yield polygon_case([[0.5, 0.5, 4.5, 0.5, 4.5, 4.5, 0.5, 4.5]], 7, 9)
    yield polygon_case([[-5, -5, -1, -5, -1, -1, -5, -1]], 7, 9)
    yield polygon_case([[-300.3, -20.1, 2000.7, 3, 40.2, 3000.9]], 37, 41)


def encoded(bits):
    return mask.encode(np.asfortranarray(bits.astype(np.uint8)))


def pictures():
    for share in [0, 1, 0.1, 0.3, 0.5, 0.7, 0.9] * 2:
        height, width = map(int, rng.integers(3, 14, 2))
        yield rng.uniform(size=(height, width)) < share
    ring = np.zeros((11, 12), bool)
    ring[1:10, 1:11] = True
    ring[3:8, 3:9] = False
    ring[5, 5] = True
    ring[2, 9] = False
    yield ring
    blobs = rng.normal(size=(40, 50))
    for _ in range(3):
        blobs = sum(np.roll(blobs, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)) / 9
    yield blobs > 0


def overlaps():
    for share in [0.05, 0.3, 0.8]:
        a, b = (rng.uniform(size=(9, 8)) < share for _ in range(2))
        a, b = encoded(a), encoded(b)
        yield {"size": [9, 8], "a": a["counts"].decode(), "b": b["counts"].decode(),
               "iou": float(mask.iou([a], [b], [0])[0, 0]), "crowd": float(mask.iou([a], [b], [1])[0, 0]),
               "union": mask.merge([a, b])["counts"].decode()}


def resized():
    for to in [(7, 5), (20, 31), (13, 17), (1, 1), (64, 40)]:
        bits = rng.uniform(size=(13, 17)) < 0.5
        out = torch.nn.functional.interpolate(torch.from_numpy(bits)[None, None].float(), size=to)[0, 0]
        yield {"from": [13, 17], "to": to, "rle": encoded(bits)["counts"].decode(),
               "resized": encoded(out.numpy() > 0)["counts"].decode()}


fixture = {
    "polygons": list(polygons()),
    "bits": [{"size": list(bits.shape), "bits": "".join("01"[int(b)] for b in bits.ravel()),
              "rle": encoded(bits)["counts"].decode()} for bits in pictures()],
    "overlaps": list(overlaps()),
    "resized": list(resized()),
}
lines = ",\n".join(f'"{k}": [\n' + ",\n".join(json.dumps(case) for case in v) + "]" for k, v in fixture.items())
Path(__file__).with_name("masks.json").write_text("{" + lines + "}\n")
