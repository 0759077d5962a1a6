"""Detects objects with ONNX Runtime or OpenVINO and writes what ``rcnn detect --format json`` writes.

    python onnx_detect.py --runtime openvino --model model.onnx picture.png > openvino.json

Both compute in f32, with as many threads as they choose by themselves.
"""

import argparse
import json
import sys

import numpy as np
from PIL import Image


def onnxruntime(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    # Of all outputs: masks and keypoints that nobody asks for might not be computed.
    names = [output.name for output in session.get_outputs()]

    def run(image):
        found = dict(zip(names, session.run(names, {"image": image})))
        return [found[name] for name in ("boxes", "labels", "scores")]

    return run


def compiled(path):
    """A model in OpenVINO that computes in f32."""
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    return openvino.Core().compile_model(path, "CPU", options)


def openvino(path):
    model = compiled(path)
    outputs = [model.output(name) for name in ("boxes", "labels", "scores")]
    request = model.create_infer_request()

    def run(image):
        found = request.infer({"image": image})
        return [np.array(found[output]) for output in outputs]

    return run


def record(path, boxes, labels, scores):
    """The detections of a picture as ``rcnn detect --format json`` writes them, of arrays."""
    detections = [
        {"box": box, "label": int(label), "name": str(int(label)), "score": score}
        for box, label, score in zip(boxes.tolist(), labels.tolist(), scores.tolist())
    ]
    return {"image": path, "detections": detections}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", choices=("onnxruntime", "openvino"), required=True)
    parser.add_argument("--model", required=True, help="what export_onnx.py made")
    parser.add_argument("images", nargs="+", help="of the size that the model was exported for")
    args = parser.parse_args()
    run = {"onnxruntime": onnxruntime, "openvino": openvino}[args.runtime](args.model)
    results = []
    for path in args.images:
        pixels = np.asarray(Image.open(path).convert("RGB"), np.float32) / np.float32(255)
        boxes, labels, scores = run(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        results.append(record(path, boxes, labels, scores))
    json.dump(results, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
