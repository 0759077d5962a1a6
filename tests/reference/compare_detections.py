"""Compares two JSON files of detections and exits with 1 when they differ by more than a tolerance.

    python compare_detections.py torchvision.json rcnn.json [--box-tol 0.05] [--score-tol 1e-3]

Each file is a list of ``{"image": ..., "detections": [{"box": [x1, y1, x2, y2], "label": 1,
"name": "...", "score": 0.9}]}``. Images are paired by name, or by file name, or failing that by
order; detections of the same label by overlap, best first.
"""

import argparse
import json
import os
import sys


def iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union > 0 else 0.0


def match(first, second):
    """Pairs of indices, greedily by overlap, then by nearest score among equal overlaps."""
    candidates = sorted(
        (-iou(a["box"], b["box"]), abs(a["score"] - b["score"]), i, j)
        for i, a in enumerate(first)
        for j, b in enumerate(second)
        if a["label"] == b["label"]
    )
    left, right, pairs = set(), set(), []
    for overlap, _, i, j in candidates:
        if overlap < 0 and i not in left and j not in right:
            left.add(i)
            right.add(j)
            pairs.append((i, j))
    return pairs


def pair_images(first, second):
    if len(first) != len(second):
        sys.exit(f"{len(first)} images against {len(second)}")
    for key in (str, os.path.basename):
        by_name = {key(entry["image"]): entry for entry in second}
        if len(by_name) == len(second) and all(key(entry["image"]) in by_name for entry in first):
            return [(entry, by_name[key(entry["image"])]) for entry in first]
    return list(zip(first, second))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--box-tol", type=float, default=0.05, help="pixels")
    parser.add_argument("--score-tol", type=float, default=1e-3)
    args = parser.parse_args()
    with open(args.first) as a, open(args.second) as b:
        images = pair_images(json.load(a), json.load(b))

    unmatched, total, worst_box, worst_score = 0, 0, 0.0, 0.0
    for first, second in images:
        a, b = first["detections"], second["detections"]
        pairs = match(a, b)
        box = max((abs(p - q) for i, j in pairs for p, q in zip(a[i]["box"], b[j]["box"])), default=0.0)
        score = max((abs(a[i]["score"] - b[j]["score"]) for i, j in pairs), default=0.0)
        alone = len(a) + len(b) - 2 * len(pairs)
        print(
            f"{first['image']}: {len(a)} and {len(b)} detections, {len(pairs)} matched, "
            f"boxes within {box:.5f} px, scores within {score:.2e}"
        )
        unmatched, total = unmatched + alone, total + len(pairs)
        worst_box, worst_score = max(worst_box, box), max(worst_score, score)

    same = unmatched == 0 and worst_box <= args.box_tol and worst_score <= args.score_tol
    print(
        f"{'same' if same else 'DIFFERENT'}: {total} matched, {unmatched} unmatched, "
        f"boxes within {worst_box:.5f} px, scores within {worst_score:.2e}"
    )
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
