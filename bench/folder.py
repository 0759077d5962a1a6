"""How `rcnn detect` over a folder scales with threads and with images computed together.

    cargo build --release --bin rcnn
    python bench/folder.py                                 # the detector that comes along
    python bench/folder.py --weights W.pth --images DIR --threads 1 2 4 --batch-sizes 1 8

Prints images a second, of the best of some rounds, from process start to finish, and beside it the same
with `--output`: pictures are read and written while others are computed. Needs Python alone.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def seconds(command, threads):
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    result = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if result.returncode != 0:
        sys.exit(f"{command[0]} failed: {result.stderr.decode(errors='replace')}")
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rcnn", default=ROOT / "target" / "release" / "rcnn", help="the command to time")
    parser.add_argument("--weights", help="those of `rcnn detect --weights`")
    parser.add_argument("--images", default=ROOT / "examples" / "blood-cells", help="a folder of pictures")
    parser.add_argument("--repeat", type=int, default=8, help="how often each picture is given")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    pictures = sorted(p for p in pathlib.Path(args.images).iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not pictures:
        sys.exit(f"{args.images}: no pictures")
    pictures = [str(p) for p in pictures] * args.repeat
    base = [str(args.rcnn), "detect", "--format", "jsonl"]
    if args.weights:
        base += ["--weights", args.weights]
    cases = [(threads, size) for threads in sorted(set(args.threads)) for size in args.batch_sizes]
    best = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            for threads, size in cases:
                for drawn in (False, True):
                    output = ["--output", folder] if drawn else []
                    took = seconds([*base, "--batch-size", str(size), *output, *pictures], threads)
                    key = threads, size, drawn
                    best[key] = min(took, best.get(key, took))
    print("| threads | batch size | images/s | of one thread | with pictures drawn |\n|---|---|---|---|---|")
    for threads, size in cases:
        rate = len(pictures) / best[threads, size, False]
        alone = len(pictures) / best[cases[0][0], size, False]
        drawn = len(pictures) / best[threads, size, True]
        print(f"| {threads} | {size} | {rate:.1f} | {rate / alone:.2f} | {drawn:.1f} |")


if __name__ == "__main__":
    main()
