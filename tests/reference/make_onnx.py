"""Writes what ONNX Runtime finds with the files of ../../crates/rcnn-onnx/tests/files, beside them.

    RCNN_ONNX_FILES=write cargo test -p rcnn-onnx    # writes the files
    python make_onnx.py
"""

import json
import math
import pathlib

import numpy as np

from onnx_runtimes import Exported

FILES = pathlib.Path(__file__).resolve().parent.parent.parent / "crates" / "rcnn-onnx" / "tests" / "files"
SIZES = [(60, 96), (50, 50), (33, 17), (48, 80)]
# Which of the pictures are batches.
BATCHES = {
    "dynamic": [[0], [1, 2, 3]],
    "image": [[0], [1], [2], [3]],
    "fixed": [[0, 1]],
    "gather": [[3]],
    "roi_pool": [[0], [1, 2, 3]],
    "tensorflow2018": [[0], [1], [2], [3]],
    "tensorflow2019": [[0, 1]],
}


def picture(height, width):
    y, x, channel = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    return ((y * 7 + x * 13 + channel * 29 + y * x // 3) % 256).astype(np.uint8)


def rounded(values):
    return [rounded(value) for value in values] if isinstance(values, list) else round(values, 6)


def main():
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
