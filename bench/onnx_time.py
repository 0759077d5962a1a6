"""Times a file of ``rcnn export`` in ONNX Runtime against torchvision's own export of the same model.

    python onnx_time.py --rcnn ../target/release/rcnn --weights model.pth --arch resnet50 --norm-eps 0 picture.png

Takes the options of tests/reference/torchvision_detect.py, of which the model's size must agree with what ``rcnn`` infers of
the weights (``--rcnn-args`` is passed on to it). torchvision's file is for images of the picture's size; of ours one takes
pictures of any size and one this size alone. All three resize the picture. They run in turn, ``--runs`` times each, so that
what else the machine does slows all of them; seconds are those of the clock and those of all CPUs.
"""

import os
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
from PIL import Image


def session(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def main():
    parser = torchvision_detect.parser(__doc__)
    parser.add_argument("--rcnn", required=True)
    parser.add_argument("--rcnn-args", default="", help="for rcnn export, in one string")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="0 for as many as ONNX Runtime chooses")
    args = parser.parse_args()
    [picture] = args.images
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    height, width = pixels.shape[:2]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        own = [option for option in sys.argv[1:] if option != picture]
        for option in ("--rcnn", "--rcnn-args", "--runs", "--threads"):
            if option in own:
                at = own.index(option)
                del own[at : at + 2]
        theirs = [sys.executable, HERE / "export_onnx.py", *own, "-o", folder / "torchvision.onnx", picture]
        subprocess.run(theirs, check=True)
        for name, flags in (("any size", []), ("this size", ["--size", f"{height}x{width}"])):
            command = [args.rcnn, "export", args.weights, "-o", folder / f"{name}.onnx", "--input", "image"]
            start = time.perf_counter()
            subprocess.run([*command, *flags, *args.rcnn_args.split()], check=True)
            print(f"exported for {name} in {time.perf_counter() - start:.2f} s, reading the weights included")
        sessions = {path.stem: session(path, args.threads) for path in sorted(folder.glob("*.onnx"))}
    floats = np.ascontiguousarray(pixels.astype(np.float32).transpose(2, 0, 1) / np.float32(255))
    clock, cpu = ({name: [] for name in sessions} for _ in range(2))
    for run in range(args.runs + 1):
        for name, file in sessions.items():
            image = {"image": floats if name == "torchvision" else pixels}
            start, before = time.perf_counter(), os.times()
            found = file.run(None, image)
            after = os.times()
            if run > 0:
                clock[name].append(time.perf_counter() - start)
                cpu[name].append(after.user + after.system - before.user - before.system)
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
