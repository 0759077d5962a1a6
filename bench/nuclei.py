"""Trains detectors of masks or keypoints from several seeds, and says how good they are on two splits.

    cargo build --release --bin rcnn
    python bench/nuclei.py NUCLEI                                       # examples/nuclei.toml
    python bench/nuclei.py NUCLEI --config bench/nuclei/masks.toml bench/nuclei/keypoints.toml
    python bench/nuclei.py NUCLEI --seeds 0 --name mosaic -- --mosaic 0.3   # what follows is for `rcnn train`

NUCLEI is a folder of COCO's layout with splits train, val and test. bench/nuclei has the recipes that torchvision's
models were trained by, examples/nuclei.toml a model under 5 MB. Prints a table: AP, AP50 and AP75 of the last
epoch's weights, which nothing chose, and under each configuration the mean over seeds and splits. Runs stay in
--out, and are not repeated. Needs Python alone.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
NUMBERS = ("AP", "AP50", "AP75")


def call(*command, **options):
    result = subprocess.run([str(part) for part in command], text=True, **options)
    if result.returncode != 0:
        sys.exit(f"{command[0]} {command[1]} failed: {result.stderr or ''}")
    return result.stdout


def measure(args, config, seed, folder):
    """Trains in a folder and evaluates: AP by split and kind, minutes of training, MB in f16."""
    record = folder / "measured.json"
    if record.exists():
        return json.loads(record.read_text())
    start = time.perf_counter()
    train = ["train", "--config", config, "--data", args.data, "--seed", seed, "--out", folder, "--progress", "lines"]
    print(f"{folder}: training", file=sys.stderr, flush=True)
    call(args.rcnn, *train, *args.options, stdout=sys.stderr)
    measured = {"minutes": (time.perf_counter() - start) / 60, "splits": {}}

    weights, small = folder / "last.bpk", folder / "f16.bpk"
    call(args.rcnn, "convert", weights, "-o", small, "--dtype", "f16", "--overwrite", capture_output=True)
    measured["megabytes"] = small.stat().st_size / 1e6
    for split in args.splits:
        evaluate = ["eval", "--weights", weights, "--data", args.data, "--split", split, "--format", "json"]
        found = json.loads(call(args.rcnn, *evaluate, capture_output=True))
        kinds = {"bbox": found} | {kind: found[kind] for kind in ("segm", "keypoints") if kind in found}
        measured["splits"][split] = {k: [numbers[n] or 0.0 for n in NUMBERS] for k, numbers in kinds.items()}
    record.write_text(json.dumps(measured, indent=1) + "\n")
    return measured


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path, help="folder of the data")
    parser.add_argument("--config", nargs="+", type=pathlib.Path, default=[ROOT / "examples" / "nuclei.toml"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--splits", nargs="+", default=["val", "test"])
    parser.add_argument("--rcnn", default=ROOT / "target" / "release" / "rcnn", help="the command to run")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs"), help="folder of the runs")
    parser.add_argument("--name", help="name of the runs [default: that of the configuration]")
    given, behind = sys.argv[1:], []
    if "--" in given:
        at = given.index("--")
        given, behind = given[:at], given[at + 1 :]
    args = parser.parse_args(given)
    args.options = behind

    print("| configuration | seed | split | kind | AP | AP50 | AP75 | minutes | MB in f16 |\n|" + "---|" * 9)
    for config in args.config:
        name = args.name or config.stem
        means = {}
        for seed in args.seeds:
            measured = measure(args, config, seed, args.out / f"{name}-{seed}")
            cost = f"{measured['minutes']:.1f} | {measured['megabytes']:.2f}"
            for split, kinds in measured["splits"].items():
                for kind, numbers in kinds.items():
                    means.setdefault(kind, []).append(numbers)
                    cells = " | ".join(f"{number:.3f}" for number in numbers)
                    print(f"| {name} | {seed} | {split} | {kind} | {cells} | {cost} |", flush=True)
        for kind, all_numbers in means.items():
            cells = " | ".join(f"{statistics.mean(numbers):.3f}" for numbers in zip(*all_numbers))
            print(f"| {name} | mean | {', '.join(args.splits)} | {kind} | {cells} | | |", flush=True)


if __name__ == "__main__":
    main()
