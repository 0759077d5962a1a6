"""Writes fixtures/backbones.safetensors and .json: the feature map of `features` of torchvision's classifiers, on the
rule's weights and image, for the members of a family that are in no model case.

    python make_backbones.py
"""

import json

import torch
from safetensors.torch import save
from torch import nn
from torchvision import models

import synthetic
from make_models import FIXTURES, sampled

ARCHS = "vgg11 vgg13 vgg19 vgg13_bn vgg16_bn vgg19_bn".split()
IMAGE = {"name": "backbones", "height": 64, "width": 96}


@torch.no_grad()
def main():
    torch.set_num_threads(2)
    image, maps = synthetic.image(*IMAGE.values())[None], {}
    for arch in ARCHS:
        model = nn.ModuleDict({"backbone": getattr(models, arch)(weights=None).features})
        maps[arch] = synthetic.fill(model.eval(), {})["backbone"](image)
        print(arch, list(maps[arch].shape), f"{maps[arch].std():.3g}")
    (FIXTURES / "backbones.safetensors").write_bytes(save(sampled(maps)))
    (FIXTURES / "backbones.json").write_text(json.dumps({"archs": ARCHS, "images": [IMAGE]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
