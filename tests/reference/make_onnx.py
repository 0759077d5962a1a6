"""Writes what ONNX Runtime finds with the files of ../../crates/rcnn-onnx/tests/files, beside them.

    RCNN_ONNX_FILES=write cargo test -p rcnn-onnx    # writes the files
    python make_onnx.py
    python make_onnx.py --compare openvino tract     # only prints how far other runtimes are from that

OpenVINO leaves one detection of `dynamic` unmatched in either list: in the picture of 7x90 pixels more boxes than there is room for
have the same score, bit for bit, and its TopK takes any of them.
"""

import argparse
import json
import math
import pathlib

import numpy as np

from onnx_compare import difference
from onnx_runtimes import Exported

FILES = pathlib.Path(__file__).resolve().parent.parent.parent / "crates" / "rcnn-onnx" / "tests" / "files"
SIZES = [(60, 96), (50, 50), (33, 17), (48, 80), (7, 90)]
# Which of the pictures are batches.
BATCHES = {
    "dynamic": [[0], [1, 2, 3], [4]],
    "image": [[0], [1], [2], [3]],
    "fixed": [[0, 1]],
    "gather": [[3]],
    "roi_pool": [[0], [1, 2, 3]],
    "keypoints": [[0, 1], [2, 3], [4]],
    "tensorflow2018": [[0], [1], [2], [3]],
    "tensorflow2019": [[0, 1]],
}


def picture(height, width):
    y, x, channel = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    return ((y * 7 + x * 13 + channel * 29 + y * x // 3) % 256).astype(np.uint8)


def rounded(values):
    return [rounded(value) for value in values] if isinstance(values, list) else round(values, 6)


def compare(runtime):
    # tract knows neither free sizes nor RoIAlign.
    for kind in ["gather"] if runtime == "tract" else BATCHES:
        exported, found = Exported(str(FILES / f"{kind}.onnx"), runtime), []
        theirs = json.loads((FILES / f"{kind}.json").read_text())
        for batch in BATCHES[kind]:
            found += exported([picture(*SIZES[i]) for i in batch])
        compared = [name for name in ("boxes", "labels", "scores", "keypoints") if name in found[0]]
        theirs = [
            {name: np.array(expected[name]).reshape(-1, *ours[name].shape[1:]) for name in compared}
            for ours, expected in zip(found, theirs, strict=True)
        ]
        box, score, alone, point = difference(found, theirs)
        print(f"{runtime} {kind}: boxes within {box:.1e} px, scores within {score:.1e}, keypoints within {point:.1e} px, {alone} unmatched")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", nargs="*", default=[], help="runtimes")
    runtimes = parser.parse_args().compare
    for runtime in runtimes:
        compare(runtime)
    if not runtimes:
        write()


def write():
    for kind, batches in BATCHES.items():
        exported = Exported(str(FILES / f"{kind}.onnx"), "onnxruntime")
        results = []
        for batch in batches:
            for found in exported([picture(*SIZES[i]) for i in batch]):
                after = {"after": found.pop("after")} if "after" in found else {}
                if "masks" in found:
                    found["masks"] = found["masks"].reshape(len(found["masks"]), math.prod(found["masks"].shape[1:]))
                results.append({name: rounded(value.tolist()) for name, value in found.items()} | after)
        (FILES / f"{kind}.json").write_text(json.dumps(results) + "\n")
        print(kind, [len(result["labels"]) for result in results])


if __name__ == "__main__":
    main()
