"""Detects objects with TensorFlow's frozen graph, in TensorFlow or OpenVINO, and writes what ``rcnn detect --format json``
writes.

    python tensorflow_detect.py --model frozen_inference_graph.pb picture.png > tensorflow.json
    python tensorflow_detect.py --convert frozen_inference_graph.pb graph.xml picture.png
    python tensorflow_detect.py --runtime openvino --model graph.xml picture.png > openvino.json

Both compute in f32, with as many threads as they choose by themselves. What OpenVINO runs is converted beforehand, for
pictures of this one size.
"""

import argparse
import json
import os
import sys

import numpy as np
from onnx_detect import compiled, record
from PIL import Image

INPUT, OUTPUTS = "image_tensor", ("detection_boxes", "detection_classes", "detection_scores")


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))[None]


def tensorflow(path):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    graph_def = tf.compat.v1.GraphDef()
    with open(path, "rb") as file:
        graph_def.ParseFromString(file.read())
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
    names = {node.name.rsplit("/", 1)[-1]: f"{node.name}:0" for node in graph_def.node}
    session = tf.compat.v1.Session(graph=graph)
    outputs = [names[name] for name in OUTPUTS]
    return lambda image: session.run(outputs, {f"{INPUT}:0": image})


def openvino(path):
    model = compiled(path)
    request = model.create_infer_request()
    outputs = [next(o for o in model.outputs if any(name in n for n in o.names)) for name in OUTPUTS]

    def run(image):
        found = request.infer({0: image})
        return [np.array(found[output]) for output in outputs]

    return run


def convert(graph, to, picture):
    import openvino

    model = openvino.Core().read_model(graph)
    model.reshape(pixels(picture).shape)
    openvino.save_model(model, to, compress_to_fp16=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", choices=("tensorflow", "openvino"), default="tensorflow")
    parser.add_argument("--model", help="a frozen graph, or what --convert made of it")
    parser.add_argument("--convert", nargs=2, metavar=("GRAPH", "XML"), help="for OpenVINO, and the size of the picture")
    parser.add_argument("images", nargs="+")
    args = parser.parse_args()
    if args.convert:
        return convert(*args.convert, args.images[0])
    run = {"tensorflow": tensorflow, "openvino": openvino}[args.runtime](args.model)
    results = []
    for path in args.images:
        image = pixels(path)
        boxes, classes, scores = (np.reshape(found, (-1, 4) if k == 0 else -1) for k, found in enumerate(run(image)))
        boxes = boxes[:, [1, 0, 3, 2]] * np.float32([image.shape[2], image.shape[1]] * 2)
        results.append(record(path, boxes, classes, scores))
    json.dump(results, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
