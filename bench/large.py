"""Memory of `rcnn detect --tile` on a TIFF of 30000x20000 pixels: 1.8 GB of RGB, read by its strips.

    cargo build --release --bin rcnn
    python bench/large.py

The picture is flat but for copies of one with objects, and compressed (deflate), so that its file takes some
20 MB; it is deleted at the end. Needs Pillow.
"""

import argparse
import json
import os
import pathlib
import resource
import struct
import subprocess
import tempfile
import time
import zlib

from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROWS = 16
SHORT, LONG = 3, 4


def strips(picture, width, height):
    """Compressed strips: a copy of the picture in every third place of every third row of places."""
    across, down = 3 * picture.width, 3 * picture.height
    background = bytes([205, 204, 208])
    pixels, row = picture.tobytes(), 3 * picture.width

    def line(y):
        y %= down
        content = pixels[y * row : (y + 1) * row] + background * across
        return (content[: 3 * across] * (width // across + 1))[: 3 * width]

    made = {}
    for top in range(0, height, ROWS):
        rows = range(top, min(top + ROWS, height))
        key = top % down, len(rows)
        if key not in made:
            made[key] = zlib.compress(b"".join(map(line, rows)), 1)
        yield made[key]


def write_tiff(file, picture, width, height):
    file.write(b"II*\0" + bytes(4))
    offsets, lengths = [], []
    for strip in strips(picture, width, height):
        offsets.append(file.tell())
        lengths.append(file.write(strip))

    def longs(values):
        start = file.tell()
        file.write(struct.pack(f"<{len(values)}I", *values))
        return start

    bits = file.tell()
    file.write(struct.pack("<3H", 8, 8, 8))
    entries = [
        (256, LONG, 1, width),
        (257, LONG, 1, height),
        (258, SHORT, 3, bits),
        (259, SHORT, 1, 8),  # deflate
        (262, SHORT, 1, 2),  # RGB
        (273, LONG, len(offsets), longs(offsets)),
        (277, SHORT, 1, 3),
        (278, LONG, 1, ROWS),
        (279, LONG, len(lengths), longs(lengths)),
    ]
    directory = file.tell()
    file.write(struct.pack("<H", len(entries)))
    for entry in entries:
        file.write(struct.pack("<HHII", *entry))
    file.write(bytes(4))
    file.seek(4)
    file.write(struct.pack("<I", directory))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rcnn", default=ROOT / "target" / "release" / "rcnn", help="the command")
    parser.add_argument("--image", type=pathlib.Path, default=ROOT / "assets" / "blood-cells.jpg")
    parser.add_argument("--size", type=int, nargs=2, default=[30000, 20000], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--folder", type=pathlib.Path, help="where there is room for the file")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = pathlib.Path(folder) / "large.tiff"
        with open(path, "wb") as file:
            write_tiff(file, Image.open(args.image).convert("RGB"), *args.size)
        width, height = args.size
        print(f"{width}x{height}: {width * height * 3 / 1e6:.0f} MB of pixels in a file of {path.stat().st_size / 1e6:.0f} MB")
        command = [args.rcnn, "detect", "--tile", "640", "--score-thresh", "0.5", "--format", "json", path]
        start = time.perf_counter()
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        objects = len(json.loads(output)[0]["detections"])
        print(f"{objects} objects in {seconds:.1f} s, peak memory {peak:.0f} MiB")


if __name__ == "__main__":
    main()
