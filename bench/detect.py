"""Times `rcnn detect` against torchvision: whole processes, in turn, on the same picture and weights.

    cargo build --release --bin rcnn
    python bench/detect.py                      # ResNet-50-FPN with synthetic weights, 800x1088
    python bench/detect.py --weights W.pth --arch resnet18 --num-classes 4 --norm batch \\
        --min-size 240 --max-size 480 --image cells.png

Needs what tests/reference/requirements.txt lists. Prints medians and ratios, after checking that both
found the same objects. "per image" is what each further image of a run adds.
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

ROOT = pathlib.Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "tests" / "reference"
sys.path.insert(0, str(REFERENCE))


def synthetic_case(folder):
    """Weights and a picture by the written rule, with the gains of the ResNet-50 test case."""
    import synthetic
    import torch
    from PIL import Image
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    gains = json.loads((ROOT / "tests" / "fixtures" / "resnet50_frozen.json").read_text())["gains"]
    model = FasterRCNN(resnet_fpn_backbone(backbone_name="resnet50", weights=None), num_classes=91)
    weights, picture = folder / "resnet50.pth", folder / "picture.png"
    torch.save(synthetic.fill(model, gains).state_dict(), weights)
    Image.fromarray(synthetic.image_u8("bench", 800, 1088)).save(picture)
    return weights, picture


def run(command, output):
    """Seconds and peak MB of a process whose standard output goes to a file."""
    start = time.perf_counter()
    with open(output, "wb") as out:
        process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=subprocess.PIPE)
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status != 0:
        sys.exit(f"{command[0]} failed: {errors.decode(errors='replace')}")
    return seconds, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rcnn", default=ROOT / "target" / "release" / "rcnn", help="the command to time")
    parser.add_argument("--weights", help="a checkpoint; synthetic ones by default")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--norm", choices=("frozen", "batch"), default="frozen")
    parser.add_argument("--num-classes", default="91")
    parser.add_argument("--min-size", default="800")
    parser.add_argument("--max-size", default="1333")
    parser.add_argument("--image", help="a PNG")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=4, help="images of the longer runs")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        weights, picture = args.weights, args.image
        if weights is None:
            weights, made = synthetic_case(folder)
            picture = picture or made
        elif picture is None:
            parser.error("--weights wants --image too")
        sizes = ["--min-size", args.min_size, "--max-size", args.max_size]
        theirs = [sys.executable, REFERENCE / "torchvision_detect.py", "--weights", weights, "--arch", args.arch]
        theirs += ["--norm", args.norm, "--num-classes", args.num_classes, *sizes]
        ours = [args.rcnn, "detect", "--weights", weights, "--format", "json", *sizes]
        outputs = {"torchvision": folder / "theirs.json", "rcnn": folder / "ours.json"}
        commands = {"torchvision": theirs, "rcnn": ours}

        figures = {}
        for _ in range(args.rounds):
            for count in (1, args.images):
                for name, command in commands.items():
                    figure = run([*command, *[picture] * count], outputs[name])
                    figures.setdefault((name, count), []).append(figure)
        compare = [sys.executable, REFERENCE / "compare_detections.py", outputs["rcnn"], outputs["torchvision"]]
        same = subprocess.run([str(part) for part in compare], capture_output=True, text=True)
        print(same.stdout.strip().splitlines()[-1])

        def median(name, count, which):
            return statistics.median(figure[which] for figure in figures[name, count])

        rows = [("one image, start to end (s)", lambda name: median(name, 1, 0))]
        rows += [("peak memory (MB)", lambda name: median(name, 1, 1))]
        further = lambda name: (median(name, args.images, 0) - median(name, 1, 0)) / (args.images - 1)
        rows += [("per image (s)", further)]
        print("\n| | rcnn | torchvision | ratio |\n|---|---|---|---|")
        for title, figure in rows:
            ours, theirs = figure("rcnn"), figure("torchvision")
            print(f"| {title} | {ours:.2f} | {theirs:.2f} | {ours / theirs:.2f} |")
        sys.exit(same.returncode)


if __name__ == "__main__":
    main()
