"""Writes the checkpoints in fixtures/ and expected.json, which says what torch itself reads from them.

Run with torch, torchvision and safetensors installed: python make_fixtures.py
"""

import argparse
import collections
import enum
import json
import pickle
import zipfile
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import mobilenet_v3_small
from torchvision.models.detection import FasterRCNN, fasterrcnn_mobilenet_v3_large_fpn
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

HERE = Path(__file__).parent / "fixtures"
EXPECTED = {}


class Labelled(torch.Tensor):
    """A tensor subclass: saved through `torch._tensor._rebuild_from_type_v2`."""


class Kind(enum.Enum):
    """A key of a dict that is no plain value."""

    BOX = 1


class Net(nn.Module):
    """A small network with the layers of a detector: convolution, batch norm, linear."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, bias=False)
        self.bn = nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(self.bn(self.conv(x)).mean((2, 3)))


class Nested(nn.Module):
    """What the `state_dict` of a module has, and what it leaves out."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(count(2))
        self.register_parameter("shift", None)
        self.register_buffer("seen", torch.tensor(3))
        self.register_buffer("cells", count(4), persistent=False)
        self.body = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        self.head = nn.ModuleDict({"a": self.body[0], "b": nn.Linear(2, 1)})
        self.last = count(5)


def flat(value, path=""):
    """Every tensor of nested dicts, lists and modules, in order, by its dotted path."""
    if isinstance(value, nn.Module):
        value = value.state_dict()
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from flat(inner, f"{path}.{key}" if path else str(key))


def burn_name(dtype):
    """`torch.bfloat16` is `bf16`, `torch.uint8` is `u8`."""
    return str(dtype).removeprefix("torch.").replace("float", "f").replace("uint", "u").replace("int", "i")


def expect(file, format, value, metadata=None):
    tensors = [
        {
            "name": name,
            "dtype": burn_name(t.dtype),
            "shape": list(t.shape),
            "values": t.detach().as_subclass(torch.Tensor).to(torch.float64).flatten().tolist(),
        }
        for name, t in flat(value)
    ]
    EXPECTED[file] = {"format": format, "metadata": metadata or {}, "tensors": tensors}


def save(name, value, refused=False, read=None, **options):
    """Saves in today's format and in that of before PyTorch 1.6. `read` is what is read of it, if not all."""
    torch.save(value, HERE / f"{name}.pth", **options)
    torch.save(value, HERE / f"{name}_legacy.pth", _use_new_zipfile_serialization=False, **options)
    if not refused:
        expect(f"{name}.pth", "PyTorch zip", read or value)
        expect(f"{name}_legacy.pth", "PyTorch legacy", read or value)


def norms():
    """Detectors whose norms no counter tells of, and what torch has for the body's: files of names and shapes, zipped."""
    folder = HERE / "norms"
    folder.mkdir(exist_ok=True)
    anchors = AnchorGenerator(((32, 64, 128, 256, 512),), ((0.5, 1.0, 2.0),))

    def features(**options):
        backbone = mobilenet_v3_small(**options).features
        backbone.out_channels = 576
        pool = MultiScaleRoIAlign(["0"], 7, 2)
        return FasterRCNN(backbone, 2, rpn_anchor_generator=anchors, box_roi_pool=pool)

    def resnet(eps):
        model = FasterRCNN(resnet_fpn_backbone(backbone_name="resnet18", weights=None), 2)
        overwrite_eps(model, eps)
        return model

    found = {}

    def write(name, model, whole=False):
        zero = torch.zeros(1)
        if whole:
            for module in model.modules():
                for key, value in module._parameters.items():
                    module._parameters[key] = None if value is None else nn.Parameter(zero.expand(value.shape))
                for key, value in module._buffers.items():
                    module._buffers[key] = zero.expand(value.shape)
        else:
            state = model.state_dict()
            for key in list(state):
                if key.endswith("num_batches_tracked"):
                    del state[key]
                else:
                    state[key] = zero.expand(state[key].shape)
        torch.save(model if whole else state, HERE / "raw.pth")
        repack("raw.pth", f"norms/{name}.pth", zipfile.ZIP_DEFLATED)
        (HERE / "raw.pth").unlink()
        norm = next(m for m in model.backbone.modules() if isinstance(m, (nn.BatchNorm2d, FrozenBatchNorm2d)))
        found[name] = [type(norm).__name__, norm.eps]

    write("stripped", features())
    write("frozen", features(norm_layer=FrozenBatchNorm2d))
    write("stripped_fpn", fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None))
    write("whole", features(norm_layer=partial(FrozenBatchNorm2d, eps=1e-3)), whole=True)
    write("whole_fpn", resnet(0.0), whole=True)
    (folder / "norms.json").write_text(json.dumps(found) + "\n")


def no_source(_):
    raise OSError("keeps the source code of classes out of the old format's files")


def rounded(value):
    """The same, its fractions cut to a few bits: short in JSON, and the same number after any parser."""
    with torch.no_grad():
        for _, t in flat(value):
            if t.is_floating_point():
                t.copy_((t * 256).round() / 256)
    return value


def count(*shape, dtype=torch.float32):
    return torch.arange(1, 1 + torch.Size(shape).numel(), dtype=torch.float32).reshape(shape).to(dtype)


def repack(source, target, compression=zipfile.ZIP_STORED, replace=None):
    """The same archive under another top folder, compressed or with some entries replaced, without debug notes."""
    with zipfile.ZipFile(HERE / source) as old, zipfile.ZipFile(HERE / target, "w") as new:
        for info in old.infolist():
            inner = info.filename.split("/", 1)[1]
            if inner.endswith(".debug_pkl"):
                continue
            entry = zipfile.ZipInfo(f"any name/{inner}")  # dated 1980: the same bytes each time
            new.writestr(entry, (replace or {}).get(inner, old.read(info)), compression)


def main():
    HERE.mkdir(exist_ok=True)
    torch.manual_seed(0)
    torch.serialization.get_source_lines_and_file = no_source
    net = Net()

    save("state_dict", rounded(net.state_dict()))
    save("channels_last", rounded(Net().to(memory_format=torch.channels_last).state_dict()))

    base = count(4, 6)
    volume = count(2, 3, 2, 2)
    save(
        "views",
        {
            "base": base,
            "shared_row": base[2],
            "transposed": base.t(),
            "strided": base[1::2, 1::3],
            "expanded": count(3).reshape(3, 1).expand(3, 4),
            "scalar_expanded": torch.tensor(2.5).expand(2, 2),
            "channels_last": volume.contiguous(memory_format=torch.channels_last),
            "permuted": volume.permute(3, 1, 0, 2),
            "zero_dim": torch.tensor(7),
            "empty": torch.zeros(0, 3),
            "parameter": nn.Parameter(count(2, 2)),
            "labelled": count(2).as_subclass(Labelled),
        },
    )

    names = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "uint16", "bool"]
    save("dtypes", {name: (count(2, 3) % 4).to(getattr(torch, name)) for name in names})

    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(count(1, 2, 5, 5)).sum().backward()
    optimizer.step()
    save(
        "nested",
        {
            "model": collections.OrderedDict(fc=collections.OrderedDict(weight=count(2, 2))),
            "optimizer": rounded(optimizer.state_dict()),
            "history": [count(2), {"last": count(1)}],
            "counts": collections.defaultdict(int, seen=3),
            "args": argparse.Namespace(lr=0.1, device="cpu"),
            "epoch": 3,
            "big": 2**200,
        },
    )
    save("protocol5", {"weight": count(2, 3)}, pickle_protocol=5)

    save("module", rounded(net))
    save("wrapped_module", {"model": net, "epoch": 1, "optimizer": rounded(optimizer.state_dict())})
    save("nested_module", rounded(Nested()))

    # What is read beside entries of kinds that are not.
    weights = {"model": {"weight": count(2, 2)}}
    beside = {
        "cooccurrence": count(2, 2).to_sparse(),
        "phase": torch.zeros(2, dtype=torch.complex64),
        "conjugate": torch.zeros(2, dtype=torch.complex64).conj(),
        "quantized": torch.quantize_per_tensor(count(2), 0.5, 1, torch.qint8),
        "criterion": nn.CrossEntropyLoss(),
    }
    keyed = {"map": {0.5: count(1), 0.75: count(2), (1, "a"): count(3), None: count(4), True: count(5)}}
    read = weights | {"map": {str(key).replace("'", ""): value for key, value in keyed["map"].items()}}
    read["map"]["?5"] = keyed["map"][Kind.BOX] = count(6)
    save("beside", weights | beside | keyed, read=read)
    torch.save(weights | {"tiny": torch.zeros(2).to(torch.float8_e4m3fn)}, HERE / "float8.pth")
    expect("float8.pth", "PyTorch zip", weights)
    save_file({"weight": count(2, 2), "tiny": torch.zeros(2).to(torch.float8_e4m3fn)}, HERE / "float8.safetensors")
    (HERE / "float8.safetensors").chmod(0o644)
    expect("float8.safetensors", "safetensors", {"weight": count(2, 2)})

    # What must be refused, each for its own reason.
    save("tensor", count(2), refused=True)
    save("no_tensors", {"epoch": 1}, refused=True)
    save("complex", {"inner": {"weight": torch.zeros(2, dtype=torch.complex64)}}, refused=True)
    save("sparse", {"weight": count(2, 2).to_sparse()}, refused=True)
    torch.jit.script(nn.Linear(1, 1)).save(HERE / "raw_script.pth")
    repack("raw_script.pth", "script.pth")
    (HERE / "raw_script.pth").unlink()
    (HERE / "plain.pkl").write_bytes(pickle.dumps({"weight": [1.0]}))
    repack("protocol5.pth", "big_endian.pth", replace={"byteorder": b"big"})

    repack("state_dict.pth", "deflated.pth", zipfile.ZIP_DEFLATED)
    expect("deflated.pth", "PyTorch zip", torch.load(HERE / "state_dict.pth"))

    metadata = {"format": "pt", "classes": "RBC,WBC"}
    tensors = {"b.weight": count(2, 3), "a.bias": count(3, dtype=torch.float16), "n": torch.tensor(4)}
    save_file(tensors, HERE / "small.safetensors", metadata)
    (HERE / "small.safetensors").chmod(0o644)
    # The file lays its tensors out by falling alignment, then by name.
    expect("small.safetensors", "safetensors", {k: tensors[k] for k in ["n", "b.weight", "a.bias"]}, metadata)

    norms()
    (HERE / "expected.json").write_text(json.dumps(EXPECTED, indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
