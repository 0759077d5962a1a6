"""Times a training step of ResNet-50-FPN (batch 4, 240x320) with more and more of it frozen.

    cargo build --release --example train_step
    python bench/freeze.py

Each case is a process by itself, all cases in turn in each round. Prints the medians of seconds and
peak memory, and their ratios to the step with nothing frozen.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
CASES = {
    "nothing frozen": [],
    "body frozen": ["body"],
    "body and FPN frozen": ["backbone"],
    "all but the box predictor frozen": ["*", "thaw box_predictor"],
}


def run(program, rules):
    """Seconds of a step and peak MB."""
    command = [str(program), "resnet50", "7", *rules]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{program} failed")
    # The first step also initialises.
    steps = [float(line.split()[1]) for line in output.splitlines()[1:]]
    return statistics.median(steps), usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=ROOT / "target/release/examples/train_step", help="the example, built")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    figures = {name: [] for name in CASES}
    for _ in range(args.rounds):
        for name, rules in CASES.items():
            figures[name].append(run(args.program, rules))
    print("| | step (s) | ratio | peak (MB) | ratio |\n|---|---|---|---|---|")
    first = None
    for name, found in figures.items():
        seconds, peak = (statistics.median(column) for column in zip(*found))
        first = first or (seconds, peak)
        print(f"| {name} | {seconds:.2f} | {seconds / first[0]:.2f} | {peak:.0f} | {peak / first[1]:.2f} |")


if __name__ == "__main__":
    main()
