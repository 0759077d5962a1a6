"""Writes crates/rcnn-tile/tests/merges.json: what SAHI and ensemble-boxes make of overlapping detections.

SAHI's own classes (`NMSPostprocess`, `GreedyNMMPostprocess`) run on its own `ObjectPrediction`s, which keep boxes as
floats in this version. Detections are drawn with a fixed seed. A case in which an overlap comes close to the threshold,
where rounding would decide, is refused.

    pip install sahi==0.12.8 ensemble-boxes==1.0.9
    python make_merges.py
"""

import itertools
import json
import pathlib

import numpy as np
from ensemble_boxes import weighted_boxes_fusion
from sahi.postprocess.backends import set_postprocess_backend
from sahi.postprocess.combine import GreedyNMMPostprocess, NMSPostprocess
from sahi.prediction import ObjectPrediction

OUTPUT = pathlib.Path(__file__).resolve().parents[2] / "crates" / "rcnn-tile" / "tests" / "merges.json"
WIDTH, HEIGHT = 640, 480
CLOSE = 1e-4


def detections(seed, objects, views):
    """Boxes [N, 4] in pixels, scores and labels of several noisy views of objects, some of them cut."""
    rng = np.random.default_rng(seed)
    boxes, scores, labels = [], [], []
    for _ in range(objects):
        centre, side = rng.uniform([0, 0], [WIDTH, HEIGHT]), rng.uniform(20, 160, 2)
        label = rng.integers(1, 4)
        for _ in range(rng.integers(1, views + 1)):
            x1, y1 = centre - side / 2 + rng.normal(0, 6, 2)
            x2, y2 = centre + side / 2 + rng.normal(0, 6, 2)
            if rng.random() < 0.4:
                # A tile ends within the object.
                cut = rng.uniform(x1, x2)
                x1, x2 = (x1, cut) if rng.random() < 0.5 else (cut, x2)
            box = np.clip([x1, y1, x2, y2], 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
            if box[2] - box[0] < 1 or box[3] - box[1] < 1:
                continue
            boxes.append(np.round(box, 2))
            scores.append(round(rng.uniform(0.05, 1), 4))
            labels.append(int(label))
    assert len(set(scores)) == len(scores), "equal scores"
    return np.array(boxes, np.float32), np.array(scores, np.float32), labels


def overlap(a, b, metric):
    shared = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    areas = [np.prod(box[2:] - box[:2]) for box in (a, b)]
    return shared / (sum(areas) - shared if metric == "IOU" else min(areas))


def result(boxes, scores, labels):
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    rounded = lambda box: [round(float(edge), 3) for edge in box]
    return {
        "boxes": [rounded(boxes[i]) for i in order],
        "scores": [round(float(scores[i]), 5) for i in order],
        "labels": [int(labels[i]) for i in order],
    }


def sahi(method, metric, threshold, agnostic, boxes, scores, labels):
    for a, b in itertools.combinations(boxes.astype(np.float64), 2):
        assert abs(overlap(a, b, metric) - threshold) > CLOSE, "an overlap that rounding decides on"
    predictions = [
        ObjectPrediction(bbox=box.tolist(), category_id=label, score=float(score), full_shape=[HEIGHT, WIDTH])
        for box, score, label in zip(boxes, scores, labels)
    ]
    kind = {"nms": NMSPostprocess, "nmm": GreedyNMMPostprocess}[method]
    merged = kind(match_threshold=threshold, match_metric=metric, class_agnostic=agnostic)(predictions)
    return result(
        [p.bbox.to_xyxy() for p in merged], [p.score.value for p in merged], [p.category.id for p in merged]
    )


def fusion(threshold, views, boxes, scores, labels):
    scale = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])
    lists = [[], [], []]
    for index in range(len(boxes)):
        lists[index % views].append(index)
    pick = lambda values: [[values[i] for i in view] for view in lists[:views]]
    fused = weighted_boxes_fusion(
        pick((boxes / scale).tolist()), pick(scores.tolist()), pick(labels), iou_thr=threshold, conf_type="avg"
    )
    return result(fused[0] * scale, fused[1], fused[2])


def main():
    set_postprocess_backend("numpy")
    cases = []
    for seed, (objects, views) in enumerate([(5, 3), (25, 4)]):
        boxes, scores, labels = detections(seed, objects, views)
        merges = []
        for method, metric, threshold, agnostic in itertools.product(
            ["nms", "nmm"], ["IOU", "IOS"], [0.3, 0.5], [False, True]
        ):
            if agnostic and threshold != 0.5:
                continue
            merged = sahi(method, metric, threshold, agnostic, boxes, scores, labels)
            merges.append(dict(method=method, metric=metric.lower(), threshold=threshold, agnostic=agnostic, **merged))
        for views, threshold in [(1, 0.55), (2, 0.5), (3, 0.55)]:
            merged = fusion(threshold, views, boxes, scores, labels)
            merges.append(dict(method="wbf", metric="iou", threshold=threshold, agnostic=False, views=views, **merged))
        cases.append(dict(result(boxes, scores, labels), merges=merges))
    lines = ",\n".join(json.dumps(case) for case in cases)
    OUTPUT.write_text(f"[\n{lines}\n]\n")
    print(f"{OUTPUT}: {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
