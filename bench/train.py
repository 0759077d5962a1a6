"""Times a training step against torchvision's: same network, batch and image size, in turn.

    cargo build --release --example train_step
    python bench/train.py

Needs what tests/reference/requirements.txt lists. Four pictures of 640x480 are brought to 320x240, with
twelve objects each; batch norms train; SGD with momentum. Prints medians of seconds and ratios. Each
side runs in a process of its own; of every process the first step does not count.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def torchvision_steps(arch, steps):
    """What the processes of the other side run: prints seconds of the forward pass and the step."""
    import torch
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    backbone = resnet_fpn_backbone(
        backbone_name=arch, weights=None, norm_layer=torch.nn.BatchNorm2d, trainable_layers=5
    )
    model = FasterRCNN(backbone, num_classes=4, min_size=240, max_size=480).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    images = list(torch.rand(4, 3, 480, 640))
    corners = torch.tensor([[i % 4 * 150, i // 4 * 120, 60 + 5 * i] for i in range(12)]).float()
    x, y, side = corners.T
    boxes = torch.stack([x, y, x + side, y + side], 1)
    targets = [{"boxes": boxes, "labels": torch.arange(12) % 3 + 1} for _ in images]
    for _ in range(steps):
        start = time.perf_counter()
        loss = sum(model(images, targets).values())
        forward = time.perf_counter() - start
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(forward, time.perf_counter() - start)


def run(command):
    output = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    return [tuple(map(float, line.split())) for line in output.stdout.splitlines()][1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=ROOT / "target" / "release" / "examples" / "train_step")
    parser.add_argument("--arch", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--steps", type=int, default=6, help="steps of a process")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each side")
    parser.add_argument("--torchvision", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.torchvision:
        torchvision_steps(arguments.torchvision, arguments.steps)
        return
    print(f"{'':10} {'':8} {'rcnn':>8} {'torchvision':>12} {'ratio':>6}")
    for arch in arguments.arch:
        times = {"rcnn": [], "torchvision": []}
        for _ in range(arguments.rounds):
            times["rcnn"] += run([arguments.program, arch, arguments.steps])
            itself = [sys.executable, __file__, "--torchvision", arch, "--steps", arguments.steps]
            times["torchvision"] += run(itself)
        for place, what in enumerate(["forward", "step"]):
            rcnn, torch = (statistics.median(t[place] for t in times[side]) for side in times)
            print(f"{arch:10} {what:8} {rcnn:8.3f} {torch:12.3f} {rcnn / torch:6.2f}")


if __name__ == "__main__":
    main()
