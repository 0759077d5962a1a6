"""Makes the files of the corpus that no editor could: python fuzz/make_seeds.py (needs onnx).

Frozen graphs whose constants are one number each, the entries of a checkpoint's index, a graph of ONNX with a node for
each operator that is exported, and requests with pictures.
"""

import pathlib

import onnx
from onnx import helper

HERE = pathlib.Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
MODEL = HERE.parent / "weights-import/tests/fixtures/tensorflow/2018"
EXPORTS = HERE.parent / "crates/rcnn-onnx/tests/files"
IMAGES = HERE.parent / "crates/rcnn-image/tests/images"


def varint(value):
    digits = []
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(digits + [value])


def read_varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


def fields(data):
    """(number, bytes of the value, or its number) of each field."""
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        if tag & 7 == 0:
            value, at = read_varint(data, at)
        else:
            length, at = (4, at) if tag & 7 == 5 else read_varint(data, at)
            value, at = data[at:at + length], at + length
        yield tag >> 3, value


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def repeated(node):
    """A constant with its first number for all, another node with its inputs alone."""
    out = b""
    for number, value in fields(node):
        entry = dict(fields(value)) if number == 5 else {}
        if number == 5 and entry[1] != b"value":
            continue
        if number == 5:
            tensor = dict(fields(dict(fields(entry[2]))[8]))
            first = tensor.get(4, b"")[:4].ljust(4, b"\0")
            tensor = field(1, tensor[1]) + field(2, tensor.get(2, b"")) + b"\x2d" + first
            value = field(1, b"value") + field(2, field(8, tensor))
        out += field(number, value)
    return out


def graphs():
    nodes = [value for number, value in fields((MODEL / "frozen_inference_graph.pb").read_bytes()) if number == 1]
    name = lambda node: dict(fields(node))[1].decode()
    variables = {"weights", "biases", "depthwise_weights", "pointwise_weights", "gamma", "beta", "moving_mean",
                 "moving_variance"}
    suppression = [node for node in nodes if "MultiClassNonMaxSuppression" in name(node)]
    first = next(node for node in suppression if dict(fields(node))[2].startswith(b"NonMaxSuppression"))
    by_name = {name(node): node for node in suppression}
    chain, left = [], [name(first)]
    while left:
        node = by_name.pop(left.pop().split(":")[0].lstrip("^"), None)
        if node is not None:
            chain.append(node)
            left += [value.decode() for number, value in fields(node) if number == 3]
    wanted = [node for node in nodes if name(node).split("/")[-1] in variables]
    wanted = [repeated(node) for node in wanted + chain]
    yield "repeated.pb", b"".join(field(1, node) for node in wanted)
    yield "few.pb", b"".join(field(1, node) for node in wanted[:3])
    graph = b"".join(field(1, node) for node in wanted[:2])
    yield "saved_model.pb", field(1, 1) + field(2, field(2, graph))


def index():
    """The only block of the index, without its checksum."""
    table = (MODEL / "model.ckpt.index").read_bytes()
    footer = table[-48:]
    _, at = read_varint(footer, 0)
    _, at = read_varint(footer, at)
    start, _ = read_varint(footer, at)
    entry = table[start:]
    _, at = read_varint(entry, 0)
    key, at = read_varint(entry, at)
    _, at = read_varint(entry, at)
    start, at = read_varint(entry, at + key)
    length, _ = read_varint(entry, at)
    assert start == 0 and length > 20_000
    yield "whole", table[:length]
    block, entries, at = b"", [], 0
    while len(entries) < 4:
        begin = at
        sizes = []
        for _ in range(3):
            size, at = read_varint(table, at)
            sizes.append(size)
        at += sizes[1] + sizes[2]
        entries.append(table[begin:at])
    yield "few", block.join(entries) + bytes(4)


def operators():
    """A model with a node for each operator, made of those of exported models."""
    seen, nodes, inputs, initializers, outputs = set(), [], [], [], []
    for file in sorted(EXPORTS.glob("*.onnx")):
        model = onnx.shape_inference.infer_shapes(onnx.load(file), data_prop=True)
        graph = model.graph
        infos = {info.name: info for info in [*graph.value_info, *graph.input, *graph.output]}
        constants = {constant.name: constant for constant in graph.initializer}
        for node in graph.node:
            known = all(not name or name in infos or name in constants for name in node.input)
            is_small = all(len(constants[name].raw_data) <= 400 for name in node.input if name in constants)
            if node.op_type in seen or not known or not is_small:
                continue
            seen.add(node.op_type)
            names = {name: f"{len(seen)}{'abcdefgh'[i]}" if name else "" for i, name in enumerate(node.input)}
            copy = helper.make_node(node.op_type, [names[name] for name in node.input],
                                    [f"{len(seen)}{'xyz'[i]}" for i in range(len(node.output))], name=str(len(seen)))
            copy.attribute.extend(node.attribute)
            nodes.append(copy)
            for name, short in names.items():
                if name in constants:
                    constant = onnx.TensorProto()
                    constant.CopyFrom(constants[name])
                    constant.name = short
                    initializers.append(constant)
                elif name:
                    info = onnx.ValueInfoProto()
                    info.CopyFrom(infos[name])
                    info.name = short
                    for dimension in info.type.tensor_type.shape.dim:
                        dimension.ClearField("dim_param")
                    inputs.append(info)
    graph = helper.make_graph(nodes, "operators", inputs, outputs, initializers)
    yield "operators.onnx", helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]).SerializeToString()
    few = helper.make_graph(nodes[:2], "few", inputs[:6], outputs, initializers[:6])
    yield "few.onnx", helper.make_model(few, opset_imports=[helper.make_opsetid("", 13)]).SerializeToString()
    print(len(seen), "operators:", *sorted(seen))
    # Each has nearly twice the dimensions of the one before.
    gathers = [helper.make_node("Gather", [f"x{i}"] * 2, [f"x{i + 1}"]) for i in range(40)]
    start = helper.make_tensor_value_info("x0", onnx.TensorProto.INT64, [2, 2])
    doubling = helper.make_graph(gathers, "doubling", [start], [])
    yield "gathers-of-gathers.onnx", helper.make_model(doubling).SerializeToString()


def requests():
    picture = (IMAGES / "grey.png").read_bytes()
    jpeg = (IMAGES / "grey.jpg").read_bytes()
    yield "raw", b"score_thresh=0.5&max_dets=2&name=a.png\nimage/png\n" + picture
    yield "jpeg", b"classes=cat,2&masks=polygon&nms_thresh=1\n\n" + jpeg
    part = lambda name, content: (b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"" + name +
                                  b"\"\r\nContent-Type: image/png\r\n\r\n" + content + b"\r\n")
    yield "form", (b"masks=none\nmultipart/form-data; boundary=b\n" + part(b"a.png", picture) + part(b"b\\\".png", b"no") +
                   b"--b--\r\n")


for folder, files in [("tensorflow_graph", graphs), ("tensorflow_index", index), ("onnx", operators),
                      ("http_body", requests)]:
    for file, content in files():
        (CORPUS / folder / file).write_bytes(content)
        print(folder, file, len(content))
