"""Writes tests/fixtures: small data sets and what pycocotools makes of them.

    pip install pycocotools==2.0.11 && python make_reference.py

Each file has the annotations and detections as pycocotools reads them, the 12 numbers of its
summary, and of each class the means of its precision (AP, AP50) and recall arrays; -1 is a number
that does not exist.
"""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

FIXTURES = Path(__file__).parent / "fixtures"


class Data:
    """A data set in the making. Detections are exact in single precision, as a detector's are."""

    def __init__(self, seed, classes, step=1 / 8):
        self.rng = np.random.default_rng(seed)
        self.classes = classes
        self.step = step
        self.images, self.annotations, self.detections = [], [], []

    def image(self, image_id, width=640, height=480):
        self.images.append({"id": image_id, "file_name": f"{image_id:04}.png", "width": width, "height": height})
        return image_id

    def single(self, values):
        return np.asarray(np.round(np.asarray(values) / self.step) * self.step, np.float32)

    def object(self, image, label, box, crowd=0, area=None):
        x1, y1, x2, y2 = map(float, box)
        bbox = [x1, y1, x2 - x1, y2 - y1]
        area = bbox[2] * bbox[3] if area is None else area
        self.annotations.append({"id": len(self.annotations) + 1, "image_id": image, "category_id": label,
                                 "bbox": bbox, "area": area, "iscrowd": crowd})

    def detection(self, image, label, box, score):
        x1, y1, x2, y2 = map(float, self.single(box))
        self.detections.append({"image_id": image, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1],
                                "score": float(np.float32(score))})

    def box(self, low, high):
        size = self.rng.uniform(low, high, 2)
        corner = self.rng.uniform(0, [640, 480] - size)
        return self.single(np.concatenate([corner, corner + size]))

    def near(self, box, noise):
        """The box with each edge moved by up to a part of its size."""
        box = np.asarray(box, float)
        size = np.tile(box[2:] - box[:2], 2)
        moved = box + size * self.rng.uniform(-noise, noise, 4)
        return np.concatenate([np.minimum(moved[:2], moved[2:]), np.maximum(moved[:2], moved[2:])])

    def write(self, name):
        truth = {"info": {}, "images": self.images, "annotations": self.annotations,
                 "categories": [{"id": i, "name": n} for i, n in enumerate(self.classes, 1)]}
        gt = COCO()
        gt.dataset = json.loads(json.dumps(truth))
        gt.createIndex()
        run = COCOeval(gt, gt.loadRes(json.loads(json.dumps(self.detections))), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()

        def mean(values):
            values = values[values > -1]
            return float(values.mean()) if len(values) else -1.0

        precision, recall = run.eval["precision"], run.eval["recall"]
        per_class = [{"AP": mean(precision[:, :, k, 0, 2]), "AP50": mean(precision[0, :, k, 0, 2]),
                      "AR": mean(recall[:, k, 0, 2])} for k in range(len(self.classes))]
        expected = {"stats": [float(v) for v in run.stats], "per_class": per_class}

        def lines(rows):
            return "[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]"

        parts = [f"{json.dumps(key)}: {lines(truth[key])}" for key in ("images", "categories", "annotations")]
        parts += [f'"detections": {lines(self.detections)}', f'"expected": {json.dumps(expected, indent=1)}']
        (FIXTURES / f"{name}.json").write_text("{" + ",\n".join(parts) + "}\n")


def usual():
    """Objects of all sizes with good, poor and missing detections; odd scores and coordinates."""
    data = Data(1, ["cell", "plate", "absent", "unseen"], step=2**-14)
    for image in range(1, 31):
        data.image(image)
        if image % 7 == 0:
            # No objects, but sometimes detections.
            if image % 2:
                data.detection(image, 1, data.box(20, 90), data.rng.uniform())
            continue
        for _ in range(data.rng.integers(1, 8)):
            label = int(data.rng.choice([1, 1, 2, 4]))
            low, high = [(6, 30), (33, 95), (97, 300)][data.rng.integers(3)]
            # Annotations have decimals that are not exact in single precision.
            box = np.round(np.asarray(data.box(low, high), float), 2)
            data.object(image, label, box)
            # Nothing is detected in some images, and nothing of one class.
            if image % 5 == 0 or label == 4:
                continue
            for _ in range(data.rng.integers(0, 4)):
                data.detection(image, label, data.near(box, data.rng.choice([0.02, 0.1, 0.3])), data.rng.beta(3, 2))
        if image % 3 == 0:
            # Also of the class without objects.
            data.detection(image, int(data.rng.integers(1, 4)), data.box(10, 200), data.rng.uniform(0, 0.7))
    data.write("usual")


def ties():
    """Few different scores, identical boxes, and IoUs exactly at thresholds; unordered image ids."""
    data = Data(2, ["a", "b"], step=1.0)
    for image in [40, 3, 17, 8, 25, 1, 99, 12]:
        data.image(image)
        for label in (1, 2):
            box = data.box(40, 200)
            data.object(image, label, box)
            data.object(image, label, box)
            for _ in range(3):
                data.detection(image, label, box, data.rng.choice([0.25, 0.5, 0.75]))
            for _ in range(3):
                data.detection(image, label, data.near(box, 0.2), data.rng.choice([0.25, 0.5, 0.75]))
        # IoUs of 0.5, 0.75, 0.8 and 0.95, and a box without area.
        data.object(image, 1, [300, 300, 400, 400])
        for width, score in [(50, 0.5), (75, 0.5), (80, 0.5), (95, 0.25)]:
            data.detection(image, 1, [300, 300, 300 + width, 400], score)
        data.detection(image, 2, [50, 60, 50, 90], 0.5)
    data.write("ties")


def crowded():
    """Crowds, and more than 100 detections of one class in an image."""
    data = Data(3, ["person", "bird"])
    for image in range(1, 5):
        data.image(image)
        boxes = [data.box(15, 60) for _ in range(45)]
        for index, box in enumerate(boxes):
            data.object(image, 1, box)
        crowd = data.box(150, 300)
        data.object(image, 1, crowd, crowd=1)
        data.object(image, 2, data.box(20, 80), crowd=int(image == 2))
        for index in range(130):
            data.detection(image, 1, data.near(boxes[index % 45], 0.25), data.rng.beta(2, 2))
        # Within the crowd, all are right.
        for _ in range(6):
            corner = data.rng.uniform(crowd[:2], crowd[2:] - 30)
            data.detection(image, 1, np.concatenate([corner, corner + 25]), data.rng.uniform(0.3, 1))
        data.detection(image, 2, data.box(20, 80), 0.5)
    data.write("crowded")


def sizes():
    """Areas at the limits of small and large, and areas of masks that differ from the boxes'."""
    data = Data(4, ["square", "only crowds", "ring"], step=0.5)
    for image in range(1, 13):
        data.image(image)
        for side in (31.5, 32, 32.5, 95.5, 96, 96.5):
            corner = data.single(data.rng.uniform(0, 350, 2))
            box = np.concatenate([corner, corner + side])
            data.object(image, 1, box)
            if data.rng.uniform() < 0.8:
                data.detection(image, 1, data.near(box, 0.06), data.rng.uniform())
        ring = data.box(30, 130)
        width, height = ring[2:] - ring[:2]
        data.object(image, 3, ring, area=round(float(width * height) * data.rng.uniform(0.3, 0.8), 3))
        data.detection(image, 3, data.near(ring, 0.1), data.rng.uniform())
        if image % 4 == 0:
            data.object(image, 2, data.box(90, 300), crowd=1)
            data.detection(image, 2, data.box(20, 90), data.rng.uniform())
    data.write("sizes")


if __name__ == "__main__":
    FIXTURES.mkdir(exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):
        for make in (usual, ties, crowded, sizes):
            make()
