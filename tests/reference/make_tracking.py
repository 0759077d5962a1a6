"""Writes ../../crates/rcnn-track/tests/files/bytetrack.json: synthetic detections and the ids that ByteTrack gives them.

The reference is the paper's code as the package bytetracker has it (0.3.2, with lap 0.5.13): its states, its
Kalman filter, its IoU, which counts the last pixel as cython_bbox does, its fusion with the score and its LAPJV.
Two mistakes of it that the paper's code doesn't have are put right: it takes the centres of boxes for their corners, and
leaves out low scores when there are fewer high ones. It knows one class, so there is a tracker for each, and
all count ids together.

Scores are unique within a frame: by its score the test knows which detection an id belongs to.
"""

import argparse
import builtins
import json
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import torch
from bytetracker import byte_tracker
from bytetracker.basetrack import BaseTrack
from bytetracker.byte_tracker import BYTETracker

FILE = Path(__file__).parent / "../../crates/rcnn-track/tests/files/bytetrack.json"
WIDTH, HEIGHT, CLASSES = 640, 480, 2
CONFIG = {"track_thresh": 0.5, "match_thresh": 0.8, "track_buffer": 30}

byte_tracker.xyxy2xywh = lambda boxes: torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
byte_tracker.xywh2xyxy = lambda boxes: np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
# Boxes go with their scores, and with classes as far as there are any.
byte_tracker.zip = lambda first, *others: builtins.zip(first, *(chain(other, repeat(None)) for other in others))


class Walker:
    """An object on its way, unseen for some frames and hardly seen in others."""

    def __init__(self, random, label, begin, end, gaps=(), weak=(), way=None):
        self.label, self.begin, self.end, self.gaps, self.weak = label, begin, end, gaps, weak
        self.size = random.uniform([30, 40], [90, 140])
        self.start, self.velocity = way or (random.uniform([0, 0], [WIDTH, HEIGHT]), random.normal(0, 3, 2))
        self.wave = random.uniform(0, 4), random.uniform(0.05, 0.3)
        self.growth = random.normal(0, 0.004)

    def seen(self, frame, random):
        """The box and the score that a detector gives in this frame."""
        age = frame - self.begin
        if not 0 <= age < self.end - self.begin or any(a <= age < b for a, b in self.gaps):
            return None
        swing, speed = self.wave
        centre = self.start + age * self.velocity + [0, swing * np.sin(age * speed)]
        size = self.size * (1 + self.growth) ** age * random.normal(1, 0.02, 2)
        centre = centre + random.normal(0, 1, 2)
        low, high = np.maximum(centre - size / 2, 0), np.minimum(centre + size / 2, [WIDTH, HEIGHT])
        if (high - low < 4).any():
            return None
        weak = any(a <= age < b for a, b in self.weak)
        score = random.uniform(0.12, 0.49) if weak else random.uniform(0.62, 0.98)
        return [*low, *high], score


def sequence(seed, frames):
    """The detections of each frame: left, top, right, bottom, label and score."""
    random = np.random.default_rng(seed)
    point = lambda *v: np.array(v, float)
    walkers = [
        # Two that cross, one of them hidden meanwhile.
        Walker(random, 1, 0, frames, weak=[(34, 44)], way=(point(100, 200), point(4, 0))),
        Walker(random, 1, 0, frames, gaps=[(36, 42)], way=(point(420, 210), point(-4, 0))),
        # Two classes in one place.
        Walker(random, 1, 5, 70, way=(point(300, 350), point(1, 0))),
        Walker(random, 2, 5, 70, way=(point(305, 352), point(1, 0))),
        # Lost for about as long as it is remembered, and lost again.
        *(
            Walker(random, 2, 0, frames, gaps=[(20, 20 + gap), (80, 90)], way=(point(60 + 90 * i, 80), point(0.2, 0)))
            for i, gap in enumerate([29, 30, 31, 32, 33, 34])
        ),
        # Improbable from the beginning; seen once; leaving the picture.
        Walker(random, 1, 10, 60, weak=[(0, 50)]),
        Walker(random, 1, 12, 13),
        Walker(random, 2, 15, frames, way=(point(560, 300), point(6, 1))),
        *(
            Walker(random, int(random.integers(1, CLASSES + 1)), int(begin), int(begin + random.integers(10, 60)),
                   gaps=[(8, int(8 + random.integers(1, 8)))], weak=[(20, 26)])
            for begin in random.integers(0, frames - 20, 8)
        ),
    ]
    for frame in range(frames):
        seen = [(w.label, w.seen(frame, random)) for w in walkers]
        seen = [(label, *found) for label, found in seen if found]
        # A second box of an object, and boxes of nothing.
        if seen and frame % 7 == 0:
            label, box, score = seen[frame % len(seen)]
            seen.append((label, [v + 2 for v in box], score * 0.9))
        for _ in range(random.poisson(0.6)):
            corner = random.uniform([0, 0], [WIDTH - 60, HEIGHT - 60])
            seen.append((int(random.integers(1, CLASSES + 1)), [*corner, *(corner + 50)], random.uniform(0.05, 0.7)))
        used, detections = set(), []
        for label, box, score in sorted(seen, key=lambda s: -s[2]):
            score = round(score, 3)
            while score in used:
                score = round(score - 0.001, 3)
            used.add(score)
            detections.append([*(round(float(v), 1) for v in box), label, score])
        yield detections


def ids(frames):
    """The index and the id of each detection that belongs to a track, frame by frame."""
    BaseTrack._count = 0
    trackers = {label: BYTETracker(**CONFIG, frame_rate=30) for label in range(1, CLASSES + 1)}
    for detections in frames:
        tracked = []
        for label, tracker in trackers.items():
            mine = [[*d[:4], d[5], label] for d in detections if d[4] == label]
            found = tracker.update(torch.tensor(mine, dtype=torch.float32).reshape(-1, 6), None)
            for *_, track_id, _, score in found:
                index = min(range(len(detections)), key=lambda i: abs(detections[i][5] - score))
                tracked.append([index, int(track_id)])
        yield sorted(tracked)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--frames", type=int, default=130)
    parser.add_argument("--out", type=Path, default=FILE)
    arguments = parser.parse_args()
    frames = list(sequence(arguments.seed, arguments.frames))
    lines = [{"detections": d, "ids": t} for d, t in zip(frames, ids(frames))]
    text = ",\n".join(json.dumps(line, separators=(",", ":")) for line in lines)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(f"[\n{text}\n]\n")
    given = {track for line in lines for _, track in line["ids"]}
    print(f"{len(frames)} frames, {sum(map(len, frames))} detections, {len(given)} ids")


main()
