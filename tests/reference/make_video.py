"""Writes ../../crates/rcnn-video/tests/files: small Y4M streams of every kind that is read, and the RGB that ffmpeg makes of each.

Made with ffmpeg 5.1.9. It converts 4:4:4 and grey exactly; for 4:2:0 and 4:2:2 on x86 it takes a fast path that is up to 3 of
255 off.
"""

import subprocess
from pathlib import Path

import numpy as np

OUT = Path(__file__).parent / "../../crates/rcnn-video/tests/files"
WIDTH, HEIGHT = 16, 12
KINDS = {"420jpeg": "yuv420p", "422": "yuv422p", "444": "yuv444p", "mono": "gray", "420jpeg-full": "yuvj420p"}


def ffmpeg(data, *arguments):
    command = ["ffmpeg", "-v", "error", *arguments, "-"]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def main():
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([x * 255 / (WIDTH - 1), y * 255 / (HEIGHT - 1), x * y % 17 * 15], -1)
    pixels = np.clip(pixels + np.random.default_rng(1).normal(0, 20, pixels.shape), 0, 255).astype(np.uint8)
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24"]
    y4m = ["-f", "yuv4mpegpipe"]
    OUT.mkdir(parents=True, exist_ok=True)
    for name, kind in KINDS.items():
        size = ["-s", f"{WIDTH}x{HEIGHT}", "-i", "-", "-pix_fmt", kind]
        stream = ffmpeg(pixels.tobytes(), *raw, *size, *y4m)
        (OUT / f"{name}.y4m").write_bytes(stream)
        for matrix in ["bt601", "bt709"]:
            convert = ["-vf", f"scale=in_color_matrix={matrix}"]
            (OUT / f"{name}.{matrix}.rgb").write_bytes(ffmpeg(stream, *y4m, "-i", "-", *convert, *raw))


main()
