"""Compares `rcnn detect --tile` with SAHI on torchvision: the same weights, picture and tiles.

    cargo build --release --bin rcnn
    pip install sahi==0.12.8 opencv-python-headless
    python bench/tiles.py                   # ResNet-50-FPN with synthetic weights, 4000x3000 in 48 tiles of 640
    python bench/tiles.py --size 1600 1200 --weights W.pth --arch resnet18 --num-classes 4 --image city.png

First the boxes of SAHI's NMS and greedy NMM, by IoU and IoS, which have to be the same within 0.05 px and 1e-3 of score.
Then the time: of rcnn that of the whole process, of SAHI that of `get_sliced_prediction` on the file, model and imports
already loaded. SAHI runs torchvision with gradients on; here it does not, which is faster.

Both leave out what scores below --score-thresh. SAHI changes its merging where that is below 0.1, so it is told not to.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
REFERENCE = ROOT / "tests" / "reference"
sys.path[:0] = [str(REFERENCE), str(HERE)]

MERGES = [("nms", "NMS"), ("nmm", "GREEDYNMM")]


def sahi_model(weights, args):
    """The detector as SAHI takes it."""
    import torchvision_detect
    from sahi import AutoDetectionModel

    options = ["--weights", str(weights), "--arch", args.arch, "--norm", args.norm, "--num-classes", str(args.num_classes)]
    sizes = {"--min-size": args.min_size, "--max-size": args.max_size}
    options += [str(part) for option, size in sizes.items() if size for part in (option, size)]
    model = torchvision_detect.build(torchvision_detect.parser("").parse_args([*options, ""]))
    return AutoDetectionModel.from_pretrained(
        model_type="torchvision",
        model=model,
        device="cpu",
        confidence_threshold=args.score_thresh,
        category_mapping={str(label): str(label) for label in range(args.num_classes)},
    )


def sahi(model, picture, args, method, metric):
    """Detections and seconds."""
    import torch
    from sahi.predict import get_sliced_prediction

    start = time.perf_counter()
    with torch.inference_mode():
        result = get_sliced_prediction(
            str(picture),
            model,
            slice_height=args.tile,
            slice_width=args.tile,
            overlap_height_ratio=args.overlap,
            overlap_width_ratio=args.overlap,
            perform_standard_pred=args.full_image,
            postprocess_type=method,
            postprocess_match_metric=metric.upper(),
            postprocess_match_threshold=0.5,
            force_postprocess_type=True,
            verbose=0,
        )
    seconds = time.perf_counter() - start
    found = [
        {"box": p.bbox.to_xyxy(), "label": p.category.id, "name": p.category.name, "score": float(p.score.value)}
        for p in result.object_prediction_list
    ]
    return found, seconds


def rcnn(weights, picture, args, method, metric):
    """Detections and seconds."""
    command = [args.rcnn, "detect", "--weights", weights, "--format", "json", "--score-thresh", args.score_thresh]
    command += ["--tile", args.tile, "--overlap", args.overlap, "--merge", method, "--match", metric]
    command += ["--full-image"] if args.full_image else []
    sizes = {"--min-size": args.min_size, "--max-size": args.max_size}
    command += [part for option, size in sizes.items() if size for part in (option, size)]
    start = time.perf_counter()
    done = subprocess.run([*map(str, command), str(picture)], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)[0]["detections"], time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rcnn", default=ROOT / "target" / "release" / "rcnn", help="the command to compare")
    parser.add_argument("--weights", help="a checkpoint; synthetic ones by default")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--norm", choices=("frozen", "batch"), default="frozen")
    parser.add_argument("--num-classes", type=int, default=91, help="the background counts")
    parser.add_argument("--min-size", type=int, help="800 by default")
    parser.add_argument("--max-size", type=int, help="1333 by default")
    parser.add_argument("--image", help="a PNG: other formats are decoded with small differences")
    parser.add_argument("--size", type=int, nargs=2, default=(4000, 3000), metavar=("W", "H"), help="of the made picture")
    parser.add_argument("--tile", type=int, default=640)
    parser.add_argument("--overlap", type=float, default=0.2)
    parser.add_argument("--full-image", action="store_true")
    parser.add_argument("--score-thresh", type=float, default=0.3)
    parser.add_argument("--rounds", type=int, default=2, help="of the timing; 0 for none")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        weights, picture = args.weights, args.image
        if weights is None or picture is None:
            import detect
            import synthetic
            from PIL import Image

            made = folder / "picture.png"
            if weights is None:
                weights = folder / "weights.pth"
                detect.synthetic_case("fasterrcnn", args.num_classes, weights, made)
            if picture is None:
                picture, (width, height) = made, args.size
                Image.fromarray(synthetic.image_u8("tiles", height, width)).save(picture)

        import torch

        torch.set_num_threads(os.cpu_count())
        model = sahi_model(weights, args)
        same, seconds = True, {"rcnn": [], "SAHI": []}
        merges = [(ours, theirs, metric) for ours, theirs in MERGES for metric in ("iou", "ios")]
        for round, (ours, theirs, metric) in enumerate(merges):
            files = []
            for name, (found, time_taken) in {
                "rcnn": rcnn(weights, picture, args, ours, metric),
                "SAHI": sahi(model, picture, args, theirs, metric),
            }.items():
                files.append(folder / f"{name}.json")
                files[-1].write_text(json.dumps([{"image": str(picture), "detections": found}]))
                if round < args.rounds:
                    seconds[name].append(time_taken)
            compare = [sys.executable, REFERENCE / "compare_detections.py", *files]
            result = subprocess.run(compare, capture_output=True, text=True)
            print(f"{ours} by {metric}: {(result.stdout + result.stderr).strip().splitlines()[-1]}", flush=True)
            same &= result.returncode == 0
        if args.rounds:
            ours, theirs = (statistics.median(seconds[name]) for name in ("rcnn", "SAHI"))
            print(f"rcnn {ours:.1f} s, SAHI {theirs:.1f} s: {ours / theirs:.2f}")
        sys.exit(not same)


if __name__ == "__main__":
    main()
