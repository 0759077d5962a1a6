"""Prunes a detector of blood cells to several budgets, trains each a little, and says how good and how fast they are.

    cargo build --release --bin rcnn
    python bench/prune.py fasterrcnn_resnet18_fpn_bccd.pth BCCD --labels classes.txt
    python bench/prune.py MODEL BCCD --budgets 0.3 --steps 3 --epochs 1 --out runs/prune-steps

MODEL is a ResNet-18-FPN for 240 pixels, BCCD the folder of the data (Pascal VOC), with splits trainval, val and test. The
epoch is chosen on val, which is part of what is trained on; the table's AP is that of the test split, which nothing chose.
Times are the best of three of one picture in one process, before and after. Runs stay in --out and are resumed. Needs
Python alone.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# What the file of weights does not say.
CONFIG = {"min_size": [240], "max_size": 480, "box_batch_size_per_image": 128}


def call(*command, **options):
    result = subprocess.run([str(part) for part in command], text=True, stdout=subprocess.PIPE, **options)
    if result.returncode != 0:
        sys.exit(f"{command[0]} {command[1]} failed")
    return result.stdout


def evaluate(args, weights):
    command = ["eval", "--weights", weights, "--data", args.data, "--split", "test", "--skip-invalid"]
    return json.loads(call(args.rcnn, *command, "--format", "json"))["AP"] or 0.0


def costs(args, weights):
    found = json.loads(call(args.rcnn, "inspect", weights, "--format", "json", "--size", args.size))
    return found["macs"]["total"], found["parameters"], weights.stat().st_size


def prune(args, budget):
    """Prunes and trains, or goes on with it: the row of a budget."""
    folder = args.out / f"{args.kind}-{budget}"
    if (folder / "prune.toml").exists():
        command = ["prune", "--resume"]
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        config = args.out / "config.json"
        config.write_text(json.dumps(CONFIG))
        labels = ["--labels", args.labels] if args.labels else []
        command = ["prune", args.model, "--config", config, *labels, f"--{args.kind}", budget, "--size", args.size]
        command += ["--data", args.data, "--recipe", args.recipe, "--count", args.count]
        command += ["--steps", args.steps, "--epochs", args.epochs, *args.options]
    print(f"{folder}: pruning", file=sys.stderr, flush=True)
    said = call(args.rcnn, *command, "--out", folder)
    print(said, file=sys.stderr)
    times = [float(time) for time in re.search(r"^detection +(\S+) ms +(\S+) ms", said, re.M).groups()]
    untrained = evaluate(args, folder / f"step-{args.steps}" / "pruned.bpk")
    return folder, times, untrained, evaluate(args, folder / "pruned.bpk")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="weights to prune")
    parser.add_argument("data", type=pathlib.Path, help="folder of the data")
    parser.add_argument("--labels", type=pathlib.Path, help="class names, one a line, where the weights carry none")
    parser.add_argument("--budgets", nargs="+", type=float, default=[0.7, 0.5, 0.3])
    parser.add_argument("--kind", choices=["macs", "params", "time"], default="macs", help="what is limited")
    parser.add_argument("--recipe", type=pathlib.Path, default=ROOT / "bench" / "prune" / "cells.toml")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=2, help="after each step")
    parser.add_argument("--count", type=int, default=64, help="pictures to estimate importance on")
    parser.add_argument("--size", default="480x640", help="picture that costs are counted for")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/prune"))
    parser.add_argument("--rcnn", type=pathlib.Path, default=ROOT / "target" / "release" / "rcnn")
    parser.add_argument("options", nargs="*", help="after `--`: more options of rcnn prune")
    args = parser.parse_args()

    rows = {budget: prune(args, budget) for budget in args.budgets}
    start = next(iter(rows.values()))[0] / "start.bpk"
    whole = costs(args, start)
    print("| model | AP untrained | AP trained | MACs (G) | parameters (M) | time (ms) | of the whole | MB |")
    print("|---|---|---|---|---|---|---|---|")

    def row(name, aps, file, time, share):
        macs, parameters, size = costs(args, file)
        cells = [*aps, f"{macs / 1e9:.2f} ({macs / whole[0]:.2f})", f"{parameters / 1e6:.2f}", time, share]
        print("|", " | ".join([name, *cells, f"{size / 1e6:.1f}"]), "|")

    row("whole", ["", f"{evaluate(args, start):.3f}"], start, "", "1")
    for budget, (folder, [before, after], untrained, trained) in rows.items():
        times = f"{after:.0f} of {before:.0f}"
        row(f"{args.kind} {budget}", [f"{untrained:.3f}", f"{trained:.3f}"], folder / "pruned.bpk", times, f"{after / before:.2f}")


if __name__ == "__main__":
    main()
