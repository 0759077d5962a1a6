"""Times `rcnn detect` against torchvision, ONNX Runtime and OpenVINO: whole processes, in turn, on the
same picture and weights, all in f32. Inception v2 against TensorFlow and OpenVINO, which run its frozen graph.

    cargo build --release --bin rcnn
    python bench/detect.py --venv bench/venv    # ResNet-50-FPN with synthetic weights, 800x1088
    python bench/detect.py --model maskrcnn     # or keypointrcnn; masks are pasted by all
    python bench/detect.py --model fasterrcnn_mobilenet_v3_large_320_fpn --images 20
    python bench/detect.py --venv bench/venv-tensorflow --model inception_v2    # 600x1024
    python bench/detect.py --weights W.pth --arch resnet18 --num-classes 4 --norm batch \\
        --min-size 240 --max-size 480 --image cells.png

--venv makes a virtual environment there, unless there is one, with what requirements.txt lists (some
gigabytes from PyPI; for inception_v2 requirements-tensorflow.txt), and runs in it. Without, that has to be
installed; --only torchvision does with tests/reference/requirements.txt.

Prints, after comparing what all of them found with torchvision's or TensorFlow's, medians and, in brackets,
what rcnn's is of them. "per image" is what each further image of a run adds, reading and decoding it included;
of "CPU" the seconds of all processors, which other programs of a shared machine disturb less. Memory is what
the operating system counts as resident at most. ONNX Runtime and OpenVINO run an export for images of this one
size, made beforehand: their start has no conversion in it. One that cannot run the export is left out.
"""

import argparse
import json
import multiprocessing
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
sys.path.insert(0, str(REFERENCE))


MOBILENETS = ("fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn")


INCEPTION = "inception_v2"


def synthetic_case(model, num_classes, weights, picture):
    """Makes weights and a picture by the written rule, with the gains of a test case of the same backbone."""
    import synthetic
    from PIL import Image

    if model == INCEPTION:
        import make_tensorflow

        make_tensorflow.write_full_size(weights)
        # A picture in which no scores are so close that rounding decides between boxes.
        Image.fromarray(synthetic.image_u8("bench5", 600, 1024)).save(picture)
        return
    import torch
    import torchvision_detect
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    case = "mobilenet_v3_large_320" if model in MOBILENETS else "resnet50_frozen"
    gains = json.loads((ROOT / "tests" / "fixtures" / f"{case}.json").read_text())["gains"]
    if model in MOBILENETS:
        build = torchvision_detect.BUILDERS[model]
        model = build(weights=None, weights_backbone=None, num_classes=num_classes)
        torchvision_detect.freeze_norms(model)
    else:
        backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None)
        model = torchvision_detect.MODELS[model](backbone, num_classes=num_classes)
    torch.save(synthetic.fill(model, gains).state_dict(), weights)
    Image.fromarray(synthetic.image_u8("bench", 800, 1088)).save(picture)


class Failed(Exception):
    """A process ended with an error."""


SECONDS, MEGABYTES, CPU_SECONDS = range(3)


def run(command, output):
    """Seconds, peak MB and seconds of all processors of a process whose standard output goes to a file."""
    start = time.perf_counter()
    with open(output, "wb") as out:
        process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=subprocess.PIPE)
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status != 0:
        raise Failed(f"{' '.join(map(str, command))} failed: {errors.decode(errors='replace')}")
    return seconds, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


def enter_venv(folder, requirements):
    """Goes on in the virtual environment of a folder, which is made if need be."""
    python = pathlib.Path(folder).absolute() / "bin" / "python"
    if pathlib.Path(sys.prefix) == python.parent.parent:
        return
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-r", HERE / requirements], check=True)
    os.execv(python, [str(python), *sys.argv])


def commands(args, folder, weights, picture):
    """How to detect with each, by name; images come behind."""
    sizes = {"--min-size": args.min_size, "--max-size": args.max_size}
    sizes = [part for option, size in sizes.items() if size for part in (option, size)]
    model = ["--weights", weights, "--model", args.model, "--arch", args.arch, "--norm", args.norm, "--num-classes", args.num_classes]
    python = sys.executable
    if args.model == INCEPTION:
        graph, converted = weights / "frozen_inference_graph.pb", folder / "graph.xml"
        script = HERE / "tensorflow_detect.py"
        made = {
            "rcnn": [args.rcnn, "detect", "--weights", weights, "--format", "json"],
            "tensorflow": [python, script, "--model", graph],
        }
        if "openvino" in args.only:
            run([python, script, "--convert", graph, converted, picture], folder / "convert.txt")
            made["openvino"] = [python, script, "--runtime", "openvino", "--model", converted]
        return made
    # The two detectors over one MobileNet have the same names and shapes.
    named = ["--model", args.model, "--num-classes", args.num_classes] if args.model in MOBILENETS else []
    made = {
        "rcnn": [args.rcnn, "detect", "--weights", weights, "--format", "json", *named, *sizes],
        "torchvision": [python, REFERENCE / "torchvision_detect.py", *model, *sizes],
    }
    runtimes = [name for name in args.only if name in ("onnxruntime", "openvino")]
    if runtimes:
        graph = folder / "model.onnx"
        export = [python, HERE / "export_onnx.py", *model, *sizes, "-o", graph, picture]
        run(export, folder / "export.txt")
        for name in runtimes:
            made[name] = [python, HERE / "onnx_detect.py", "--runtime", name, "--model", graph]
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", metavar="DIR", help="a virtual environment to make or to use")
    parser.add_argument("--rcnn", default=ROOT / "target" / "release" / "rcnn", help="the command to time")
    parser.add_argument("--only", nargs="+", choices=("torchvision", "onnxruntime", "openvino"), help="leave out the others; torchvision (or TensorFlow) stays")
    parser.add_argument("--weights", type=pathlib.Path, help="a checkpoint, of inception_v2 a model's folder; synthetic ones by default")
    parser.add_argument("--model", choices=("fasterrcnn", "maskrcnn", "keypointrcnn", *MOBILENETS, INCEPTION), default="fasterrcnn")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--norm", choices=("frozen", "batch"), default="frozen")
    parser.add_argument("--num-classes", help="91 by default, as COCO; of keypointrcnn 2")
    parser.add_argument("--min-size", help="the model's by default: 800, or 320")
    parser.add_argument("--max-size", help="the model's by default: 1333, or 640")
    parser.add_argument("--image", help="a PNG: other formats are decoded with small differences")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=4, help="images of the longer runs")
    args = parser.parse_args()
    if args.venv:
        enter_venv(args.venv, "requirements-tensorflow.txt" if args.model == INCEPTION else "requirements.txt")
    args.num_classes = args.num_classes or ("2" if args.model == "keypointrcnn" else "91")
    args.only = args.only or ["torchvision", "onnxruntime", "openvino"]
    reference = "tensorflow" if args.model == INCEPTION else "torchvision"

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        weights, picture = args.weights, args.image
        if weights is None:
            weights, made = folder / ("model" if args.model == INCEPTION else "weights.pth"), folder / "picture.png"
            # In a process of its own: a child's peak memory is never counted below what its parent
            # had when it started, so this one stays without torch and TensorFlow.
            case = multiprocessing.get_context("spawn").Process(target=synthetic_case, args=(args.model, int(args.num_classes), weights, made))
            case.start()
            case.join()
            if case.exitcode != 0:
                sys.exit("the synthetic weights could not be made")
            picture = picture or made
        elif picture is None:
            parser.error("--weights wants --image too")
        programs = commands(args, folder, weights, picture)
        for name in list(programs)[2:]:
            try:
                run([*programs[name], picture], folder / "tried.json")
            except Failed as error:
                # OpenVINO 2026.4 cannot read the loop in which torchvision's export pastes masks.
                print(f"{name} is left out, as it cannot run the export: {error}", file=sys.stderr)
                del programs[name]
        figures = {}
        for _ in range(args.rounds):
            for count in (1, args.images):
                for name, command in programs.items():
                    figure = run([*command, *[picture] * count], folder / f"{name}.json")
                    figures.setdefault((name, count), []).append(figure)

        same = True
        for name in programs:
            if name != reference:
                compare = [sys.executable, REFERENCE / "compare_detections.py"]
                files = [folder / f"{name}.json", folder / f"{reference}.json"]
                result = subprocess.run([*compare, *files], capture_output=True, text=True)
                print(f"{name}, beside {reference}: {result.stdout.strip().splitlines()[-1]}")
                same &= name != "rcnn" or result.returncode == 0

        def median(name, count, which):
            return statistics.median(figure[which] for figure in figures[name, count])

        def further(which):
            return lambda name: (median(name, args.images, which) - median(name, 1, which)) / (args.images - 1)

        def number(value):
            return f"{value:.0f}" if value >= 100 else f"{value:.3g}"

        rows = [
            ("per image (s)", further(SECONDS)),
            ("CPU per image (s)", further(CPU_SECONDS)),
            ("one image, start to end (s)", lambda name: median(name, 1, SECONDS)),
            ("peak memory (MB)", lambda name: median(name, args.images, MEGABYTES)),
        ]
        print("\n| | " + " | ".join(programs) + " |\n|" + "---|" * (len(programs) + 1))
        for title, figure in rows:
            ours = figure("rcnn")
            cells = [number(ours)]
            cells += [f"{number(figure(name))} ({ours / figure(name):.2f})" for name in programs if name != "rcnn"]
            print(f"| {title} | " + " | ".join(cells) + " |")
        sys.exit(not same)


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(str(failure))
