"""Compares the pixels that rcnn_image makes of image files with those that Pillow makes of them.

    cargo build -p rcnn-image --example pixels
    python tests/reference/compare_pixels.py target/debug/examples/pixels FILES AND FOLDERS...

Prints each file of other pixels, or that only one of the two reads, and the number of files that agree.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


def files(arguments):
    for path in map(Path, arguments):
        yield from sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def pillow(path):
    """The upright RGB pixels, or the error."""
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # Pillow's decoders raise many kinds
        return f"{type(error).__name__}: {error}"


def ours(process, path):
    process.stdin.write(f"{path}\n".encode())
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    if isinstance(answer, str):
        return answer
    width, height = answer
    pixels = process.stdout.read(width * height * 3)
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)


def difference(a, b):
    if isinstance(a, str) or isinstance(b, str):
        return None if isinstance(a, str) and isinstance(b, str) else "only one reads it: " + (a if isinstance(a, str) else b)
    if a.shape != b.shape:
        return f"shapes {a.shape} and {b.shape}"
    off = np.abs(a.astype(int) - b.astype(int))
    return None if not off.any() else f"{(off > 0).mean():.2%} of the samples by up to {off.max()}"


def main():
    process = subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    agree = total = refused = 0
    for path in files(sys.argv[2:]):
        a, b = ours(process, path), pillow(path)
        found = difference(a, b)
        total += 1
        agree += found is None
        refused += isinstance(a, str) and isinstance(b, str)
        if found:
            print(f"{path}: {found}")
    print(f"{agree} of {total} files agree; neither reads {refused}")
    sys.exit(agree < total)


main()
