"""Compares files of ``rcnn export`` with torchvision, on the models of cases.py and more, in several runtimes.

    cargo build --release
    python onnx_compare.py --rcnn ../../target/release/rcnn [--models resnet18 v2] [--runtimes onnxruntime openvino]

Weights and pictures follow the rule of synthetic.py. Each model is exported in each of the kinds of file (``--kinds``),
which are checked by onnx's checker and its strict shape inference, and run on batches of 1, 2 and 5 pictures of mixed and
odd sizes, on blank ones and on such as are a few pixels high, whose boxes are narrower than 4 px.

Where detections differ (by 0.05 px, 1e-3 in a score, or in number), torchvision is asked again with its weights changed by
1e-6: if it then differs from itself, the case hangs on rounding and is counted as fragile. Exits with 1 if any differs otherwise.
"""

import argparse
import copy
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from torchvision.models.detection import KeypointRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

import synthetic
from cases import CASES
from make_models import build
from onnx_runtimes import SESSIONS, Exported, check

BOX, SCORE = 0.05, 1e-3
SIZES = {
    "one": [(90, 141)],
    "odd": [(101, 67)],
    "two": [(150, 100), (97, 131)],
    "five": [(64, 64), (33, 120), (127, 95), (75, 150), (140, 31)],
    "narrow": [(7, 300)],
    "dot": [(1, 1)],
    "tiny": [(33, 17), (16, 40)],
}
KINDS = {
    "dynamic": [],
    "opset18": ["--opset", "18"],
    "opset21": ["--opset", "21"],
    "gather": ["--pooling", "gather"],
    "image": ["--input", "image"],
    "fixed": [],
    "fixed-gather": ["--pooling", "gather"],
}  # fmt: skip


def branch_model(model, **options):
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=FrozenBatchNorm2d)
    options = {"min_size": 128, "max_size": 224, "rpn_pre_nms_top_n_test": 200, "rpn_post_nms_top_n_test": 60, **options}
    case = next(case for case in CASES if case["case"] == "resnet18_frozen")
    return synthetic.fill(model(backbone, 3, **options).eval(), case["gains"])


def models():
    """Name, torchvision's model, and what ``rcnn export`` is told of it."""
    for case in CASES:
        if case["variant"] != "custom" and case["options"].get("box_roi_pool", {}).get("sampling_ratio", 2):
            about = {"config": case["options"]}
            if case["variant"] in ("v2", "builder"):
                arch = "fasterrcnn_resnet50_fpn_v2" if case["variant"] == "v2" else case["arch"]
                about["flags"] = ["--model", arch, "--num-classes", case["num_classes"]]
            yield case["case"], lambda case=case: build(case), about
    config = {"min_size": [128], "max_size": 224, "rpn_pre_nms_top_n_test": 200, "rpn_post_nms_top_n_test": 60}
    yield "mask", lambda: branch_model(MaskRCNN), {"config": config}
    yield "keypoint", lambda: branch_model(KeypointRCNN, num_keypoints=3), {"config": config}


def batches():
    for name, sizes in SIZES.items():
        yield name, [synthetic.image_u8(f"onnx/{name}/{i}", *size) for i, size in enumerate(sizes)]
    yield "blank", [np.zeros((80, 120, 3), np.uint8), np.full((96, 64, 3), 255, np.uint8)]
    yield "uniform", [np.full((33, 17, 3), 117, np.uint8)]


@torch.no_grad()
def torchvision(model, pictures):
    for pool in (getattr(model.roi_heads, f"{name}_roi_pool", None) for name in ("box", "mask", "keypoint")):
        if pool is not None:
            pool.scales = None  # of the first call otherwise
    images = [torch.from_numpy(picture.astype(np.float32) / np.float32(255)).permute(2, 0, 1) for picture in pictures]
    found = [{name: value.numpy() for name, value in result.items()} for result in model(images)]
    return [{name.replace("keypoints_scores", "keypoint_scores"): v for name, v in result.items()} for result in found]


def noisy(model, seed):
    """The model with its weights changed by 1e-6 of each."""
    generator = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for tensor in other.state_dict().values():
            if tensor.is_floating_point():
                tensor *= 1 + 1e-6 * torch.randn(tensor.shape, generator=generator)
    return other


def pairs(a, b):
    """Detections of two results that are the same, best overlap first."""
    gaps = np.abs(a["boxes"][:, None] - b["boxes"][None]).max(-1, initial=0)
    gaps = gaps + np.where(a["labels"][:, None] == b["labels"][None], 0, np.inf)
    gaps = gaps + np.where(np.abs(a["scores"][:, None] - b["scores"][None]) < 0.01, 0, np.inf)
    found = []
    while gaps.size and np.isfinite(gaps.min()) and gaps.min() < 1:
        i, j = np.unravel_index(gaps.argmin(), gaps.shape)
        found.append((i, j, float(gaps[i, j])))
        gaps[i], gaps[:, j] = np.inf, np.inf
    return found


def difference(first, second):
    """Largest differences of boxes and scores, how many detections have no partner, and the largest of keypoints."""
    box = score = point = 0.0
    alone = 0
    for a, b in zip(first, second, strict=True):
        found = pairs(a, b)
        for i, j, gap in found:
            box = max(box, gap)
            score = max(score, abs(float(a["scores"][i]) - float(b["scores"][j])))
            if "keypoints" in a and "keypoints" in b:
                point = max(point, float(np.abs(a["keypoints"][i] - b["keypoints"][j]).max()))
        alone += len(a["boxes"]) + len(b["boxes"]) - 2 * len(found)
    return box, score, alone, point


def same(found):
    box, score, alone, _ = found
    return box <= BOX and score <= SCORE and alone == 0


def export(rcnn, state, about, flags, folder, name):
    config = folder / "config.json"
    config.write_text(json.dumps(about["config"]))
    command = [rcnn, "export", state, "-o", folder / f"{name}.onnx", "--config", config, "--overwrite", *about.get("flags", []), *flags]
    subprocess.run([str(part) for part in command], check=True, stderr=subprocess.DEVNULL)
    return folder / f"{name}.onnx"


def fixed_flags(pictures, path):
    """Sizes of the batch that torchvision makes of these pictures."""
    exported = check(path)
    metadata = {entry.key: entry.value for entry in exported.metadata_props}
    probe = Exported.__new__(Exported)
    probe.metadata = metadata
    sizes = np.array([probe.resized(picture).shape[1:] for picture in pictures])
    divisible = json.loads(metadata["config"]).get("size_divisible", 32)
    high, wide = -(-sizes.max(0) // divisible) * divisible
    return ["--batch", len(pictures), "--size", f"{high}x{wide}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rcnn", required=True, help="the built command")
    parser.add_argument("--models", nargs="*", help="those whose names have one of these")
    parser.add_argument("--kinds", nargs="*", default=["dynamic"], choices=KINDS)
    parser.add_argument("--runtimes", nargs="*", default=["onnxruntime", "openvino"], choices=SESSIONS)
    parser.add_argument("--batches", nargs="*", help="those of these names")
    args = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name, make, about in models():
            if args.models and not any(wanted in name for wanted in args.models):
                continue
            model = make()
            state = folder / "model.pth"
            torch.save(model.state_dict(), state)
            expected = {
                batch: (pictures, torchvision(model, pictures))
                for batch, pictures in batches()
                if not args.batches or batch in args.batches
            }
            dynamic = export(args.rcnn, state, about, [], folder, "dynamic")
            for kind in args.kinds:
                failed += compare(args, model, state, about, folder, name, kind, expected, dynamic)
    sys.exit(1 if failed else 0)


def compare(args, model, state, about, folder, name, kind, expected, dynamic):
    failed = 0
    path, shape = dynamic, None
    for runtime in args.runtimes:
        worst, total, fragile, wrong = np.zeros(4), 0, [], []
        session = None
        for batch, (pictures, theirs) in expected.items():
            if kind.startswith("fixed"):
                flags = [*KINDS[kind], *fixed_flags(pictures, dynamic)]
                path, session = export(args.rcnn, state, about, flags, folder, kind), None
            elif kind != "dynamic" and session is None:
                path = export(args.rcnn, state, about, KINDS[kind], folder, kind)
            session = session or Exported(str(path), runtime)
            if kind == "image":
                theirs = [torchvision(model, [picture])[0] for picture in pictures]
            found = difference(session(pictures), theirs)
            total += sum(len(result["boxes"]) for result in theirs)
            if same(found):
                worst = np.maximum(worst, found)
                continue
            others = [
                [torchvision(noise, [p])[0] for p in pictures] if kind == "image" else torchvision(noise, pictures)
                for noise in (noisy(model, seed) for seed in range(3))
            ]
            itself = [difference(other, theirs) for other in others]
            is_fragile = not all(map(same, itself))
            (fragile if is_fragile else wrong).append(f"{batch} {found}")
        print(
            f"{name} {kind} {runtime}: {total} detections, boxes within {worst[0]:.5f} px, scores within {worst[1]:.1e}, "
            f"keypoints within {worst[3]:.4f} px; fragile: {fragile or 'none'}; DIFFERENT: {wrong or 'none'}",
            flush=True,
        )
        failed += len(wrong)
    return failed


if __name__ == "__main__":
    main()
