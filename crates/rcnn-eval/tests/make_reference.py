"""Writes tests/fixtures: small data sets and what pycocotools makes of them.

    pip install pycocotools==2.0.11 && python make_reference.py

Each file has the annotations and detections as pycocotools reads them, the numbers of its
summary, and of each class the means of its precision (AP, AP50) and recall arrays; -1 is a number
that does not exist. `shapes` has masks and keypoints too, evaluated with boxes beside them and without.
"""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask
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

    def evaluate(self, truth, detections, kind="bbox", sigmas=None):
        gt = COCO()
        gt.dataset = json.loads(json.dumps(truth))
        gt.createIndex()
        run = COCOeval(gt, gt.loadRes(json.loads(json.dumps(detections))), kind)
        if sigmas:
            run.params.kpt_oks_sigmas = np.array(sigmas)
        run.evaluate()
        run.accumulate()
        run.summarize()

        def mean(values):
            values = values[values > -1]
            return float(values.mean()) if len(values) else -1.0

        precision, recall = run.eval["precision"], run.eval["recall"]
        per_class = [{"AP": mean(precision[:, :, k, 0, -1]), "AP50": mean(precision[0, :, k, 0, -1]),
                      "AR": mean(recall[:, k, 0, -1])} for k in range(len(self.classes))]
        return {"stats": [float(v) for v in run.stats], "per_class": per_class}

    def write(self, name, sigmas=None):
        truth = {"info": {}, "images": self.images, "annotations": self.annotations,
                 "categories": [{"id": i, "name": n} for i, n in enumerate(self.classes, 1)]}
        expected = self.evaluate(truth, self.detections)
        if sigmas:
            bare = [{k: v for k, v in d.items() if k != "bbox"} for d in self.detections]
            points = [{k: v for k, v in d.items() if k != "segmentation"} for d in bare]
            expected |= {"sigmas": sigmas,
                         "segm": self.evaluate(truth, self.detections, "segm"),
                         "segm without boxes": self.evaluate(truth, bare, "segm"),
                         "keypoints": self.evaluate(truth, self.detections, "keypoints", sigmas),
                         "keypoints without boxes": self.evaluate(truth, points, "keypoints", sigmas)}

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


def shapes():
    """Masks and keypoints, good and poor; crowds, keypoints that are not labelled, and empty masks."""
    data = Data(5, ["fish", "weed"])
    width, height = 256, 192
    ys, xs = np.mgrid[:height, :width] + 0.5

    def ellipse(centre, radii, angle):
        x, y = xs - centre[0], ys - centre[1]
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        bits = (along / radii[0]) ** 2 + (across / radii[1]) ** 2 <= 1
        rle = coco_mask.encode(np.asfortranarray(bits.astype(np.uint8)))
        tips = [np.asarray(centre) + s * radii[0] * np.array([np.cos(angle), np.sin(angle)]) for s in (-1, 1)]
        return rle, tips + [np.asarray(centre)]

    def numbers(points, visibility):
        flat = []
        for point, v in zip(points, visibility):
            flat += [float(np.float32(point[0])), float(np.float32(point[1])), float(v)] if v else [0.0, 0.0, 0.0]
        return flat

    for image in (7, 3, 12, 5, 9, 20):
        data.image(image, width, height)
        for index in range(7):
            label = int(data.rng.choice([1, 1, 2]))
            radii = data.rng.uniform(*[(5, 14), (17, 45), (60, 90)][data.rng.integers(3)], 2)
            centre, angle = data.rng.uniform([20, 20], [236, 172]), data.rng.uniform(0, np.pi)
            rle, points = ellipse(centre, radii, angle)
            crowd = int(index == 6 and image % 2)
            seen = data.rng.choice([0, 1, 2], 3, p=[0.2, 0.2, 0.6]) if index % 4 else np.zeros(3)
            x, y, w, h = coco_mask.toBbox(rle)
            data.object(image, label, [x, y, x + w, y + h], crowd, float(coco_mask.area(rle)))
            text = {"size": [height, width], "counts": rle["counts"].decode()}
            if crowd:
                runs, last, count = [], 0, 0
                for bit in coco_mask.decode(rle).flatten(order="F"):
                    if bit != last:
                        runs, last, count = runs + [count], bit, 0
                    count += 1
                text["counts"] = runs + [count]
            data.annotations[-1] |= {"segmentation": text, "keypoints": numbers(points, seen),
                                     "num_keypoints": int((seen > 0).sum())}
            for _ in range(data.rng.integers(0, 4)):
                noise = data.rng.choice([0.03, 0.1, 0.3])
                rle, points = ellipse(centre + radii * data.rng.normal(0, noise, 2),
                                      radii * data.rng.uniform(1 - noise, 1 + noise, 2), angle)
                x, y, w, h = coco_mask.toBbox(rle)
                data.detection(image, label, [x, y, x + w, y + h], data.rng.beta(3, 2))
                points = [p + radii * data.rng.normal(0, noise, 2) for p in points]
                data.detections[-1] |= {"segmentation": {"size": [height, width], "counts": rle["counts"].decode()},
                                        "keypoints": numbers(points, [1, 1, 1])}
    data.write("shapes", sigmas=[0.1, 0.1, 0.05])


if __name__ == "__main__":
    FIXTURES.mkdir(exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):
        for make in (usual, ties, crowded, sizes, shapes):
            make()
