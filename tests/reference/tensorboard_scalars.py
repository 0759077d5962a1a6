"""Prints what TensorBoard's own reader finds in a run's folder, as lines of tag, step and value.

    pip install tensorboard
    python tests/reference/tensorboard_scalars.py runs/cells

With --check, compares it with the run's metrics.jsonl: the same values under `train/` and `valid/`.
"""

import argparse
import json
import math
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def scalars(folder):
    """Value of each tag at each step."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in tags}


def logged(folder):
    """The same from metrics.jsonl, whose steps begin anew in every epoch."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = max(line["step"] for line in lines if line["split"] == "train")
    values = {}
    for line in lines:
        split, epoch = line["split"], line["epoch"]
        step = (epoch - 1) * steps + line.get("step", steps)
        for name, value in line.items():
            if name not in ("split", "epoch", "step"):
                values.setdefault(f"{split}/{name}", {})[step] = value
    return values


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    found = scalars(args.folder)
    if not args.check:
        for tag, values in sorted(found.items()):
            for step, value in sorted(values.items()):
                print(tag, step, value)
        return
    expected = logged(args.folder)
    assert found.keys() == expected.keys(), (sorted(found), sorted(expected))
    for tag, values in expected.items():
        assert found[tag].keys() == values.keys(), (tag, sorted(found[tag]), sorted(values))
        for step, value in values.items():
            assert math.isclose(found[tag][step], value, rel_tol=1e-6, abs_tol=1e-9), (tag, step)
    print(f"{len(found)} tags, {sum(map(len, found.values()))} values: as in metrics.jsonl")


if __name__ == "__main__":
    main()
