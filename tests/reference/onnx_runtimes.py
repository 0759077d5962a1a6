"""Files of ``rcnn export`` in ONNX Runtime, OpenVINO and tract, whatever kind of file it is.

``Exported(path, runtime)(pictures)`` takes pictures [H, W, 3] of bytes, as many at once as the caller likes, does for them
what the kind of file leaves to its user (resizing, a batch with noise around the pictures), and returns for each the
detections in its own pixels.
"""

import json

import numpy as np
import onnx
import torch

FORBIDDEN = {"Loop", "If", "Scan", "SequenceAt", "SplitToSequence", "SequenceConstruct", "ConcatFromSequence"}
NUMPY = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.INT64: np.int64, onnx.TensorProto.UINT8: np.uint8}


def check(path):
    """onnx's checker and its shape inference, both strict, and that there are standard operators only. The model, without weights."""
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert not {node.op_type for node in model.graph.node} & FORBIDDEN
    for initializer in inferred.graph.initializer:
        initializer.ClearField("raw_data")
    return inferred


def onnxruntime_session(path, _):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs)))


def openvino_session(path, _):
    import openvino

    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = model.create_infer_request()

    def run(inputs):
        found = request.infer(inputs)
        return {name: np.array(found[output]) for output in model.outputs for name in output.get_names()}

    return run


def tract_session(path, inputs):
    import tract

    def number(tensor):
        try:
            return tensor.to_numpy()
        except tract.TractError:  # integers that might be sizes are symbols
            return tensor.convert_to(tract.DatumType.I64).to_numpy()

    model = tract.onnx().load(path)
    names = [output.name for output in onnx.load(path, load_external_data=False).graph.output]
    runnable = model.into_model().into_runnable()

    def run(given):
        found = runnable.run([given[name] for name in inputs])
        return {name: number(tensor) for name, tensor in zip(names, found)}

    return run


SESSIONS = {"onnxruntime": onnxruntime_session, "openvino": openvino_session, "tract": tract_session}


def resized(picture, min_size, max_size, fixed_size=None):
    """A picture as torchvision resizes it, [3, H, W] from 0 to 1."""
    pixels = torch.from_numpy(picture.astype(np.float32) / np.float32(255)).permute(2, 0, 1)
    if fixed_size:
        size, scale = (fixed_size[1], fixed_size[0]), None
    else:
        height, width = pixels.shape[1:]
        size, scale = None, min(min_size / min(height, width), max_size / max(height, width))
    pixels = torch.nn.functional.interpolate(
        pixels[None], size=size, scale_factor=scale, mode="bilinear", recompute_scale_factor=None if size else True,
        align_corners=False,
    )  # fmt: skip
    return pixels[0].numpy()


def resized_by_tensorflow(picture, min_size, max_size, rule):
    """A picture as TensorFlow's Object Detection API resizes it, [3, H, W] from 0 to 1."""
    size = np.array(picture.shape[:2], np.float32)
    scaled = lambda scale: np.maximum(np.round(size * np.float32(scale)), 1).astype(int)
    least, most = np.float32(min_size), np.float32(max_size)
    if rule == "tensorflow2019":
        new = scaled(min(least / size.min(), most / size.max()))
    else:
        large = scaled(least / size.min())
        new = scaled(most / size.max()) if large.max() > max_size else large
    pixels = picture.astype(np.float32) / np.float32(255)
    for axis in (1, 0):
        position = np.float32(size[axis] / np.float32(new[axis])) * np.arange(new[axis], dtype=np.float32)
        low = np.minimum(position.astype(int), int(size[axis]) - 1)
        high = np.minimum(low + 1, int(size[axis]) - 1)
        weight = np.clip(position - low, 0, 1).astype(np.float32).reshape([-1, 1] if axis == 1 else [-1, 1, 1])
        pixels = np.take(pixels, low, axis) * (1 - weight) + np.take(pixels, high, axis) * weight
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


class Exported:
    def __init__(self, path, runtime, model=None, noise=0.0):
        """``noise`` is added to each pixel of tensors, up to this much."""
        model, self.noise = model or check(path), noise
        self.metadata = {entry.key: entry.value for entry in model.metadata_props}
        self.names = json.loads(self.metadata["classes"])
        self.shapes = {
            value.name: [d.dim_value or None for d in value.type.tensor_type.shape.dim] for value in model.graph.input
        }
        self.session = SESSIONS[runtime](path, list(self.shapes))

    def resized(self, picture):
        config = json.loads(self.metadata["config"])
        limits = json.loads(self.metadata["min_size"])[-1], int(self.metadata["max_size"])
        rule, fixed = config["resize_rule"], config["fixed_size"]
        if rule != "torchvision" and not fixed:
            return resized_by_tensorflow(picture, *limits, rule)
        return resized(picture, *limits, fixed)

    def inputs(self, pictures):
        """What a file of tensors takes, and the sizes of the pictures in it."""
        images = [self.resized(picture) for picture in pictures]
        sizes = np.array([image.shape[1:] for image in images], np.int64)
        count, _, height, width = self.shapes["images"]
        assert count in (None, len(images)), f"the file takes {count} images"
        high, wide = sizes.max(0)
        batch = np.random.default_rng(0).random((len(images), 3, height or high, width or wide), np.float32)
        for place, image in zip(batch, images):
            place[:, : image.shape[1], : image.shape[2]] = image
        if self.noise:
            batch += np.float32(self.noise) * (np.random.default_rng(1).random(batch.shape, np.float32) - np.float32(0.5))
        return {"images": batch, "image_sizes": sizes}

    def __call__(self, pictures):
        if "image" in self.shapes:
            return [self.detections(self.session({"image": picture}), slice(None)) for picture in pictures]
        inputs = self.inputs(pictures)
        found = self.session(inputs)
        results = []
        for i, (picture, size) in enumerate(zip(pictures, inputs["image_sizes"])):
            if "counts" in found:
                count = int(found["counts"][i])
                rows = (i, slice(count))
                after = {name: value[i, count:] for name, value in found.items() if name != "counts"}
            else:
                rows = found["image_index"] == i
            ratio = np.array(picture.shape[1::-1], np.float32) / size[::-1].astype(np.float32)
            results.append(self.detections(found, rows, ratio))
            if "counts" in found:
                results[-1]["after"] = {name: float(np.abs(slots).max(initial=0)) for name, slots in sorted(after.items())}
                assert not any(results[-1]["after"].values()), "slots after the last detection are not zero"
        return results

    def detections(self, found, rows, ratio=None):
        if "counts" in found and ratio is None:
            rows = (0, slice(int(found["counts"][0])))
        names = ("boxes", "labels", "scores", "masks", "keypoints", "keypoint_scores")
        result = {name: np.array(found[name][rows]) for name in names if name in found}
        if ratio is not None:
            result["boxes"] = result["boxes"] * np.tile(ratio, 2)
            if "keypoints" in result:
                result["keypoints"] = result["keypoints"] * np.append(ratio, np.float32(1))
        return result
