"""Times a file of ``rcnn export`` in ONNX Runtime against torchvision's own export of the same model.

    cargo build --release --bin rcnn
    python bench/onnx_time.py                     # ResNet-50-FPN with synthetic weights, 800x1088
    python bench/onnx_time.py --model maskrcnn
    python bench/onnx_time.py --model fasterrcnn_mobilenet_v3_large_320_fpn --runs 60
    python bench/onnx_time.py --weights W.pth --arch resnet18 --num-classes 4 --norm batch \\
        --min-size 240 --max-size 480 cells.png

Takes the options of tests/reference/torchvision_detect.py; other sizes than the model's own are passed on to ``rcnn export``, and so
are ``--rcnn-args``. torchvision's file is for images of the picture's size; of ours one takes pictures of any size and one this size
alone. All three resize the picture. torchvision's also pastes masks into it, where ours leave them at 28x28.

They run in turn, ``--runs`` times each, so that what else the machine does slows all of them; seconds are those of the clock and those
of all CPUs. A ratio is the median over turns.
"""

import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "reference"))

import numpy as np
import onnxruntime
import torchvision_detect
from detect import MOBILENETS, ROOT, synthetic_case
from export_onnx import export
from PIL import Image


def session(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # not what torchvision's loop over masks warns of
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def exported(args, picture, folder):
    """Files by name: torchvision's and ours."""
    pixels = torchvision_detect.pixels(picture)
    files = {"torchvision": folder / "torchvision.onnx"}
    export(torchvision_detect.build(args), pixels, files["torchvision"], args.model)
    # The two detectors over one MobileNet have the same names and shapes.
    named = ["--model", args.model, "--num-classes", args.num_classes] if args.model in MOBILENETS else []
    sizes = {"--min-size": args.min_size, "--max-size": args.max_size}
    sizes = [part for option, size in sizes.items() if size for part in (option, size)]
    height, width = pixels.shape[1:]
    for name, flags in (("any size", []), ("this size", ["--size", f"{height}x{width}"])):
        files[name] = folder / f"{name}.onnx"
        command = [args.rcnn, "export", args.weights, "-o", files[name], "--input", "image"]
        command += [*flags, *named, *sizes, *args.rcnn_args.split()]
        start = time.perf_counter()
        subprocess.run([str(part) for part in command], check=True, stderr=subprocess.DEVNULL)
        print(f"exported for {name} in {time.perf_counter() - start:.2f} s, reading the weights included")
    return files


def main():
    parser = torchvision_detect.parser(__doc__, has_default=True)
    parser.add_argument("--rcnn", default=ROOT / "target" / "release" / "rcnn", help="the built command")
    parser.add_argument("--rcnn-args", default="", help="for rcnn export, in one string")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=0, help="0 for as many as ONNX Runtime chooses")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        if args.weights is None:
            args.weights, picture = str(folder / "weights.pth"), folder / "picture.png"
            args.num_classes = 2 if args.model == "keypointrcnn" else args.num_classes
            synthetic_case(args.model, args.num_classes, args.weights, picture)
        args.images = args.images or [picture]
        [picture] = args.images
        sessions = {name: session(path, args.threads) for name, path in exported(args, picture, folder).items()}
        pixels = np.asarray(Image.open(picture).convert("RGB"))
    floats = np.ascontiguousarray(pixels.astype(np.float32).transpose(2, 0, 1) / np.float32(255))
    clock, cpu = ({name: [] for name in sessions} for _ in range(2))
    for run in range(args.runs + 1):
        for name, file in sessions.items():
            image = {"image": floats if name == "torchvision" else pixels}
            start, before = time.perf_counter(), time.process_time()
            found = file.run(None, image)
            if run > 0:
                clock[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - before)
            else:
                print(f"{name}: {len(found[0].reshape(-1, 4))} rows of boxes")
    for kind, times in (("clock", clock), ("CPU", cpu)):
        for name, seconds in times.items():
            # Of neighbours, so that a slow minute counts for both.
            ratio = statistics.median(a / b for a, b in zip(seconds, times["torchvision"]))
            median = statistics.median(seconds)
            print(f"{kind}, {name}: {median:.3f} s ({min(seconds):.3f} to {max(seconds):.3f}), {ratio:.2f} of torchvision's")


if __name__ == "__main__":
    main()
