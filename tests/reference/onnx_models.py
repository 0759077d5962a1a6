"""Compares files of ``rcnn export`` in several runtimes with what ``rcnn detect`` itself finds, for any model.

    python onnx_models.py --rcnn ../../target/release/rcnn blood-cells cut.bpk pruned.bpk
    python onnx_models.py --rcnn ../../target/release/rcnn maskrcnn keypointrcnn vgg16 --kinds dynamic
    python onnx_models.py --rcnn ../../target/release/rcnn ../../weights-import/tests/fixtures/tensorflow/2018

A model is a file or a name that ``rcnn`` takes, or one of full size whose weights follow the rule of synthetic.py:
``resnet50``, ``maskrcnn`` and ``keypointrcnn`` (R50-FPN), ``resnet50_v2``, ``mobilenet_320``, ``vgg16``, the paper's detector with
RoIPool, and ``vgg16_tutorial``, that of torchvision's tutorial. Pictures are the batches of onnx_compare.py and others: mixed and odd
sizes, blank ones, some a few pixels high, whose boxes are narrower than 4 px.

Where detections differ (by 0.05 px in a box or a keypoint, 1e-3 in a score, more than one in a thousand pixels of the masks,
or in number), ONNX Runtime is asked again with the file's weights changed by 1e-5 and the pixels by 1e-6: if it then differs from itself, the picture
hangs on rounding and is counted as fragile. Ties are pictures in which only detections differ that have the same score as
others: which of them comes first is said by ONNX's TopK, but not by OpenVINO's. Exits with 1 if any differs otherwise.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnx.numpy_helper
import torch
import torchvision
from PIL import Image
from torchvision.models.detection.roi_heads import paste_masks_in_image

import synthetic
from cases import FULL_SIZE, HIGH, gains
from make_models import build
from onnx_compare import BOX, KINDS, SCORE, batches, difference, pairs
from onnx_runtimes import SESSIONS, Exported, check

OTHERS = {"large": [(240, 317)], "mixed": [(213, 320), (300, 187), (60, 90)], "long": [(1, 1), (3000, 20), (60, 90)]}
PIXELS = 1e-3
TIE = 1e-6
PIXEL = 1e-6


def vgg16():
    """Names and shapes of the paper's detector, and the values of the rule."""
    table = json.loads((pathlib.Path(__file__).resolve().parent.parent / "fixtures/state_dicts.json").read_text())["vgg16"]
    shapes = {name: list(shape) for name, shape in table.items()}
    classes, width, anchors = 21, 4096, 9
    for name, shape in shapes.items():
        if name.startswith(("rpn.head.cls", "rpn.head.bbox")):
            shape[0] = anchors * (4 if "bbox" in name else 1)
        elif "box_head" in name:
            shape[:] = [width, 25088 if "fc6" in name else width][: len(shape)]
        elif "box_predictor" in name:
            shape[:] = [classes * (4 if "bbox" in name else 1), width][: len(shape)]
    gained = gains(1.0, 0.25, 1.0, 0.5, bias=4)
    return {name: synthetic.weight(name, tuple(shape), gained.get(name, 1.0)) for name, shape in shapes.items()}


def filled(model, fpn=HIGH, **options):
    return synthetic.fill(model(weights=None, weights_backbone=None).eval(), gains(fpn=fpn, **options)).state_dict()


BUILT = {
    "resnet50": (
        lambda: filled(torchvision.models.detection.fasterrcnn_resnet50_fpn, rpn_class=0.5, rpn_box=0.0625, cls=2.0, box=0.25, bias=128),
        [],
    ),
    "maskrcnn": (
        lambda: filled(torchvision.models.detection.maskrcnn_resnet50_fpn, rpn_class=0.5, rpn_box=0.0625, cls=2.0, box=0.25, bias=128),
        [],
    ),
    "keypointrcnn": (
        lambda: filled(torchvision.models.detection.keypointrcnn_resnet50_fpn, rpn_class=0.5, rpn_box=0.0625, cls=0.5, box=0.25),
        [],
    ),
    "resnet50_v2": (
        lambda: filled(torchvision.models.detection.fasterrcnn_resnet50_fpn_v2, rpn_class=1.0, rpn_box=0.25, cls=32, box=4.0, bias=8),
        [],
    ),
    "mobilenet_320": (
        lambda: filled(
            torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn, fpn=(), rpn_class=8, rpn_box=1, cls=32, box=4, bias=16
        ),
        ["--model", "fasterrcnn_mobilenet_v3_large_320_fpn", "--num-classes", 91],
    ),
    "vgg16": (vgg16, ["--model", "fasterrcnn_vgg16", "--num-classes", 21]),
    "vgg16_tutorial": (
        lambda: build(next(case for case in FULL_SIZE if case["case"] == "vgg16_tutorial")).state_dict(),
        ["--model", "vgg16", "--num-classes", 4, "--min-size", 384, "--max-size", 640],
    ),
}  # fmt: skip


def run(*command):
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"{done.args}: {done.stderr.decode()}")
    return done.stdout


def decoded(segmentation):
    """A mask of COCO's compressed run lengths."""
    height, width = segmentation["size"]
    runs, at, text = [], 0, segmentation["counts"]
    while at < len(text):
        value = shift = 0
        more = True
        while more:
            part = ord(text[at]) - 48
            value |= (part & 0x1F) << shift
            more, at, shift = part & 0x20, at + 1, shift + 5
        if part & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return np.repeat(np.arange(len(runs)) % 2, runs).reshape(width, height).T.astype(bool)


def ours(rcnn, weights, flags, paths):
    found = json.loads(run(rcnn, "detect", "--weights", weights, *flags, "--format", "json", "--batch-size", len(paths), *paths))
    results = []
    for entry in found:
        detections = entry["detections"]
        column = lambda name, shape: np.array([d[name] for d in detections], np.float32).reshape(len(detections), *shape)
        result = {"boxes": column("box", [4]), "labels": np.array([d["label"] for d in detections], int), "scores": column("score", [])}
        if any("keypoints" in d for d in detections):
            result["keypoints"] = column("keypoints", [-1, 3])
        if any("segmentation" in d for d in detections):
            result["pasted"] = [decoded(d["segmentation"]) for d in detections]
        results.append(result)
    return results


def pasted(result, picture):
    """The result with its masks in the picture."""
    if "masks" in result and len(result["masks"]):
        masks = paste_masks_in_image(torch.from_numpy(result["masks"]), torch.from_numpy(result["boxes"]), picture.shape[:2])
        result["pasted"] = list((masks[:, 0] >= 0.5).numpy())
    return result


def mask_gap(first, second):
    """Pixels of paired masks that differ, and all that there are."""
    differ = total = 0
    for a, b in zip(first, second, strict=True):
        if "pasted" not in a or "pasted" not in b:
            continue
        gaps = np.abs(a["boxes"][:, None] - b["boxes"][None]).max(-1, initial=0)
        gaps = gaps + np.where(a["labels"][:, None] == b["labels"][None], 0, np.inf)
        for i, row in enumerate(gaps):
            if row.size and row.min() <= BOX:
                other = b["pasted"][row.argmin()]
                differ, total = differ + int((a["pasted"][i] ^ other).sum()), total + int((a["pasted"][i] | other).sum())
    return differ, total


def compared(one, other):
    """`difference` and `mask_gap` of a picture."""
    return difference([one], [other]), mask_gap([one], [other])


def same(found, masks):
    box, score, alone, point = found
    return box <= BOX and point <= BOX and score <= SCORE and alone == 0 and masks[0] <= PIXELS * masks[1] + 2


def tied(one, other):
    """Whether two results are the same but for detections that are tied: others, or the last, have the same score."""
    found = pairs(one, other)
    left, right = (np.sort(np.delete(r["scores"], [pair[side] for pair in found])) for side, r in enumerate((one, other)))
    gap, masks = compared(one, other)
    if len(left) != len(right) or not same((*gap[:2], 0, gap[3]), masks) or np.abs(left - right).max(initial=0) > TIE:
        return False
    scores = other["scores"]
    return all(score <= scores.min() + TIE or np.sum(np.abs(scores - score) <= TIE) > 1 for score in right)


def noisy(path, seed, folder):
    """The file with its weights changed by 1e-5 of each."""
    model, random = onnx.load(path), np.random.default_rng(seed)
    for initializer in model.graph.initializer:
        values = onnx.numpy_helper.to_array(initializer)
        if values.dtype == np.float32 and values.size > 64:
            values = values * (1 + 1e-5 * random.standard_normal(values.shape)).astype(np.float32)
            initializer.CopyFrom(onnx.numpy_helper.from_array(values, initializer.name))
    onnx.save(model, folder / "noisy.onnx")
    return str(folder / "noisy.onnx")


def fixed_flags(pictures, dynamic):
    sizes = np.array([dynamic.resized(picture).shape[1:] for picture in pictures])
    divisible = json.loads(dynamic.metadata["config"])["size_divisible"]
    high, wide = -(-sizes.max(0) // divisible) * divisible
    return ["--batch", len(pictures), "--size", f"{high}x{wide}"]


class Model:
    def __init__(self, args, weights, flags, folder):
        self.rcnn, self.weights, self.flags, self.folder = args.rcnn, weights, [*flags, *args.flags.split()], folder
        self.kinds, self.runtimes = args.kinds, args.runtimes

    def export(self, name, flags):
        path = self.folder / f"{name}.onnx"
        run(self.rcnn, "export", self.weights, "-o", path, "--overwrite", *self.flags, *flags)
        return str(path)

    def changed(self, kind, path, pictures):
        """What ONNX Runtime finds with the file as it is, and with its weights and the pictures changed in several ways."""
        batches = [pictures]
        if kind == "image":  # whose bytes cannot change so little
            path, batches = self.folder / "dynamic.onnx", [[picture] for picture in pictures]
        runs = []
        for seed in (None, *range(4)):
            file, noise = (path, 0) if seed is None else (noisy(path, seed, self.folder), PIXEL)
            session = Exported(str(file), "onnxruntime", noise=noise)
            found = [result for batch in batches for result in session(batch)]
            runs.append([pasted(result, picture) for result, picture in zip(found, pictures)])
        return runs

    def compare(self, name, expected):
        dynamic = Exported.__new__(Exported)
        path = self.export("dynamic", [])
        dynamic.metadata = {entry.key: entry.value for entry in check(path).metadata_props}
        failed = 0
        for kind in self.kinds:
            for runtime in self.runtimes:
                failed += self.compare_in(name, kind, runtime, expected, dynamic)
        return failed

    def compare_in(self, name, kind, runtime, expected, dynamic):
        worst, total, pixels, ties, fragile, wrong = np.zeros(4), 0, np.zeros(2, int), [], [], []
        path, session = self.export("any", KINDS[kind]), None
        for batch, (pictures, together, alone) in expected.items():
            if kind.startswith("fixed"):
                path, session = self.export("any", [*KINDS[kind], *fixed_flags(pictures, dynamic)]), None
            session = session or Exported(path, runtime)
            theirs = alone if kind == "image" else together
            found = [pasted(result, picture) for result, picture in zip(session(pictures), pictures)]
            total += sum(len(result["boxes"]) for result in theirs)
            changed = None
            for i, (one, other) in enumerate(zip(found, theirs)):
                gap, masks = gaps = compared(one, other)
                if same(*gaps):
                    worst, pixels = np.maximum(worst, gap), pixels + masks
                    continue
                text = f"{batch} {i}: {[round(float(g), 5) for g in gap]} of {len(other['boxes'])}, masks {masks}"
                if tied(one, other):
                    ties.append(text)
                    continue
                changed = changed or self.changed(kind, path, pictures)
                hangs = any(not same(*compared(run[i], changed[0][i])) for run in changed[1:])
                (fragile if hangs else wrong).append(text)
        print(
            f"{name} {kind} {runtime}: {total} detections, boxes within {worst[0]:.5f} px, scores within {worst[1]:.1e}, "
            f"keypoints within {worst[3]:.4f} px, {pixels[0]} of {pixels[1]} mask pixels differ; ties: {ties or 'none'}; "
            f"fragile: {fragile or 'none'}; DIFFERENT: {wrong or 'none'}",
            flush=True,
        )
        return len(wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rcnn", required=True, help="the built command")
    parser.add_argument("--flags", default="", help="for rcnn detect and rcnn export, in one string")
    parser.add_argument("--kinds", nargs="*", default=["dynamic", "image", "fixed"], choices=KINDS)
    parser.add_argument("--runtimes", nargs="*", default=["onnxruntime", "openvino"], choices=SESSIONS)
    parser.add_argument("--batches", nargs="*", help="those of these names")
    args = parser.parse_args()
    pictures = dict(batches())
    for name, sizes in OTHERS.items():
        pictures[name] = [synthetic.image_u8(f"onnx/{name}/{i}", *size) for i, size in enumerate(sizes)]
    pictures = {name: p for name, p in pictures.items() if not args.batches or name in args.batches}
    failed = 0
    for name in args.models:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            state_dict, flags = BUILT.get(name, (None, []))
            weights = name
            if state_dict:
                weights = folder / "model.pth"
                torch.save(state_dict(), weights)
            model, expected = Model(args, weights, flags, folder), {}
            for batch, images in pictures.items():
                paths = [folder / f"{batch}_{i}.png" for i in range(len(images))]
                for path, image in zip(paths, images):
                    Image.fromarray(image).save(path)
                together = ours(args.rcnn, weights, model.flags, paths)
                alone = together
                if "image" in args.kinds and len(paths) > 1:
                    alone = [found for path in paths for found in ours(args.rcnn, weights, model.flags, [path])]
                expected[batch] = images, together, alone
            failed += model.compare(pathlib.Path(name).name, expected)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
