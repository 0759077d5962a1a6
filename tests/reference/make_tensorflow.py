"""Writes what TensorFlow computes with Faster R-CNN over Inception v2, and small models in the formats that it saves.

    python make_tensorflow.py                 writes everything
    python make_tensorflow.py --measure       only prints what the gains are chosen by
    python make_tensorflow.py --search        tries image suffixes until the case of full size is robust

Needs tensorflow-cpu and safetensors. `fixtures/inception_v2.{safetensors,json}` is a case of full size in the form of the
others, on the rule's weights; `weights-import/tests/fixtures/tensorflow/2018` and `2019` are folders of small models as the API's exporter makes
them, with what TensorFlow detects in `detections.json`.
"""

import copy
import json
import math
import os
import pathlib
import shutil
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import numpy as np
import tensorflow as tf
from safetensors.numpy import save

import synthetic
from tensorflow_graph import BLOCKS, Graph, pipeline

v1 = tf.compat.v1
TESTS = pathlib.Path(__file__).resolve().parent.parent
FIXTURES = TESTS / "fixtures"
SMALL_MODELS = TESTS.parent / "weights-import/tests/fixtures/tensorflow"
KEEP = 1024
NOISE = 1e-6

CASE = {
    "variant": "inception_v2",
    "num_classes": 91,
    "norm": "fixed",
    "norm_weight": 0.875,
    "gains": {
        "rpn.head.cls_logits.weight": 1.0,
        "rpn.head.bbox_pred.weight": 1.0,
        "roi_heads.box_predictor.cls_score.weight": 16.0,
        "roi_heads.box_predictor.bbox_pred.weight": 1.0,
    },
    "options": {
        "min_size": [256],
        "max_size": 416,
        "box_score_thresh": 0.03125,
        "rpn_post_nms_top_n_test": 40,
        "box_detections_per_img": 30,
    },
    "images": [{"name": "inception1", "height": 240, "width": 317}],
}

SMALL = {
    "num_classes": 3,
    "depth_multiplier": 0.05,
    "min_depth": 4,
    "box_predictor_depth": 16,
    "min_dimension": 128,
    "max_dimension": 200,
    "scales": [0.125, 0.25],
    "score_threshold": 0.0625,
    "max_proposals": 20,
    "max_per_class": 8,
    "max_total": 10,
}
SMALL_IMAGE = {"name": "tensorflow0", "height": 90, "width": 125}

SCOPES = {
    "FirstStageFeatureExtractor/InceptionV2/": "backbone.",
    "SecondStageFeatureExtractor/InceptionV2/": "roi_heads.box_head.",
    "Conv/": "rpn.head.conv.0.0.",
    "FirstStageBoxPredictor/BoxEncodingPredictor/": "rpn.head.bbox_pred.",
    "FirstStageBoxPredictor/ClassPredictor/": "rpn.head.cls_logits.",
    "SecondStageBoxPredictor/BoxEncodingPredictor/": "roi_heads.box_predictor.bbox_pred.",
    "SecondStageBoxPredictor/ClassPredictor/": "roi_heads.box_predictor.cls_score.",
}
NAMES = {
    "weights": "0.weight",
    "BatchNorm/gamma": "1.weight",
    "BatchNorm/beta": "1.bias",
    "BatchNorm/moving_mean": "1.running_mean",
    "BatchNorm/moving_variance": "1.running_var",
}


def parameter(variable):
    """This project's name of a variable."""
    scope = next(scope for scope in SCOPES if variable.startswith(scope))
    path, module = variable[len(scope) :], SCOPES[scope]
    if not module.endswith(("backbone.", "box_head.")):
        return module + {"weights": "weight", "biases": "bias"}[path]
    cut = path.find("/BatchNorm/") if "/BatchNorm/" in path else path.rfind("/")
    layer, name = path[:cut].lower().replace("/", "."), path[cut + 1 :]
    if layer == "conv2d_1a_7x7":
        name = {"depthwise_weights": "depthwise.weight", "pointwise_weights": "pointwise.0.weight"}.get(
            name, "pointwise." + NAMES.get(name, "")
        )
        return f"{module}{layer}.{name}"
    return f"{module}{layer}.{NAMES[name]}"


def rule(case):
    """The value of a variable, from the rule for the parameter that it becomes."""

    def initial(variable, shape):
        name = parameter(variable)
        values = lambda shape: synthetic.values(name, shape, case["gains"].get(name, 1.0), norm_weight=case["norm_weight"])
        if "BoxEncodingPredictor" in variable:
            background = 4 if name.startswith("roi_heads") else 0
            columns = shape[-1] + background
            torch_shape = [columns, *shape[-2:-1], *([1, 1] if len(shape) == 4 else [])]
            v = values(torch_shape).reshape(columns, -1)[background:]
            v = v.reshape(-1, 2, 2, v.shape[1])[:, :, ::-1].reshape(shape[-1], -1)  # x, y, w, h -> y, x, h, w
            return v.T.reshape(shape)
        if name.startswith("rpn.head.cls_logits"):
            anchors = shape[-1] // 2
            torch_shape = [anchors] + ([shape[2], 1, 1] if len(shape) == 4 else [])
            v = values(torch_shape).reshape(anchors, -1)
            return np.stack([np.zeros_like(v), v], 1).reshape(shape[-1], -1).T.reshape(shape)
        if variable.endswith("depthwise_weights"):
            height, width, channels, each = shape
            v = values([channels * each, 1, height, width]).reshape(channels, each, height, width)
            return v.transpose(2, 3, 0, 1)
        if len(shape) == 4:
            return values([shape[3], shape[2], shape[0], shape[1]]).transpose(2, 3, 1, 0)
        return values(shape[::-1]).T

    return initial


def own(variable, shape):
    """Values of the small models: from the rule's numbers for the variable itself, so that nothing is zero."""
    if variable.endswith(("gamma", "moving_variance")):
        return (1 + 0.25 * synthetic.signed(variable, shape)).astype(np.float32)
    if variable.endswith(("beta", "moving_mean", "biases")):
        return (0.125 * synthetic.signed(variable, shape)).astype(np.float32)
    fan_in = math.prod(shape[:-1]) if not variable.endswith("depthwise_weights") else shape[0] * shape[1]
    gain = 1.0 if variable.startswith("SecondStageBoxPredictor/Class") else 1.0
    return (np.float32(gain * math.sqrt(6 / fan_in)) * synthetic.signed(variable, shape)).astype(np.float32)


def picture(image):
    return synthetic.image_u8(image["name"], image["height"], image["width"])[None]


def noisy(graph, seed, relative=NOISE):
    """The graph with noise on all variables."""
    random, initial = np.random.default_rng(seed), graph.initial
    noise = lambda shape: (1 + relative * random.standard_normal(shape)).astype(np.float32)
    graph = copy.copy(graph)
    graph.initial = lambda variable, shape: initial(variable, shape) * noise(shape)
    return graph


def run(graph, image):
    with tf.Graph().as_default(), v1.Session() as session:
        placeholder, tensors = graph.build()
        session.run(v1.global_variables_initializer())
        return session.run(tensors, {placeholder: picture(image)})


def case_graph():
    options = CASE["options"]
    return full_size(
        min_dimension=options["min_size"][0],
        max_dimension=options["max_size"],
        score_threshold=options["box_score_thresh"],
        max_proposals=options["rpn_post_nms_top_n_test"],
        max_total=options["box_detections_per_img"],
    )


def full_size(**options):
    return Graph(rule(CASE), CASE["num_classes"] - 1, **options)


def xyxy(boxes):
    return np.ascontiguousarray(boxes[:, [1, 0, 3, 2]])


def swapped(deltas):
    """The last axis from `ty, tx, th, tw` to `tx, ty, tw, th`, box after box."""
    return deltas.reshape(*deltas.shape[:-1], -1, 2, 2)[..., ::-1].reshape(deltas.shape)


def stages(found, image):
    """TensorFlow's results in the names and layouts of the other cases."""
    planes = lambda x: np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    out = {
        "transform.images": planes(found["images"]),
        "transform.sizes": np.array([found["images"].shape[1:3]], np.int64),
        "features.0": planes(found["features"]),
        "rpn.deltas.0": planes(swapped(found["deltas"])),
        "rpn.objectness.0": planes(found["logits"][..., 1::2] - found["logits"][..., ::2]),
        "rpn.anchors": xyxy(found["anchors"]),
        "proposals.0": xyxy(found["proposals"]),
        "proposal_scores.0": found["proposal_scores"],
        "pooled": planes(found["pooled"]),
        "box_head": found["box_head"],
        "class_logits": found["class_logits"],
    }
    # Of the background, which TensorFlow has no deltas for, those that the rule's weights would give.
    name = "roi_heads.box_predictor.bbox_pred"
    weights = synthetic.values(f"{name}.weight", [4, found["box_head"].shape[1]], CASE["gains"][f"{name}.weight"])
    # The rule's scale depends on the inputs alone, so that the first rows are those of the whole matrix.
    background = found["box_head"] @ weights.T + synthetic.values(f"{name}.bias", [4])
    out["box_regression"] = np.concatenate([background, swapped(found["box_regression"])], 1)
    size = np.float32([image["width"], image["height"]] * 2)
    out["detections.0.boxes"] = xyxy(found["boxes"]) * size
    out["detections.0.scores"] = found["scores"]
    out["detections.0.labels"] = found["classes"].astype(np.int64)
    return out


def sampled(out, keep=KEEP):
    """As in `make_models.py`."""
    tensors = {}
    for name, value in out.items():
        full = name.startswith(("proposal", "detections", "class_logits"))
        stride = 1 if full else max(1, math.ceil(value.size / keep))
        while stride > 1 and math.gcd(stride, 2 * math.prod(value.shape)) > 1:
            stride += 1
        tensors[name] = value.reshape(-1)[::stride].copy()
        tensors[f"{name}#shape"] = np.array(value.shape, np.int64)
        tensors[f"{name}#stride"] = np.array([stride], np.int64)
    return tensors


def shifts(a, b, sizes):
    """The largest differences of boxes in pixels of the image and of scores; infinite where decisions differ."""
    if any(a[k].shape != b[k].shape for k in ("proposals", "boxes")) or (a["classes"] != b["classes"]).any():
        return math.inf, math.inf
    far = lambda k, by=1.0: float(np.abs((a[k] - b[k]) * by).max(initial=0.0))
    return max(far("proposals"), far("boxes", sizes)), max(far("proposal_scores"), far("scores"))


def margins(graph, image, found):
    """What noise on the weights changes; raises where it changes a decision."""
    sizes = np.float32([image["height"], image["width"]] * 2)
    worst = [0.0, 0.0]
    for seed in range(2):
        moved = shifts(found, run(noisy(graph, seed), image), sizes)
        if moved[0] > 0.02 or moved[1] > 2e-4:
            raise ValueError(f"noise of {NOISE} moves a box by {moved[0]:.3g} px, a score by {moved[1]:.3g}")
        worst = [max(pair) for pair in zip(worst, moved)]
    return {"noise": {"relative": NOISE, "box_px": float(f"{worst[0]:.2e}"), "score": float(f"{worst[1]:.2e}")}}


def describe(found):
    spread = lambda x: f"{x.std():.3g}"
    print("features", spread(found["features"]), "pooled", spread(found["pooled"]), "box_head", spread(found["box_head"]))
    print("rpn logits", spread(found["logits"]), "deltas", spread(found["deltas"]))
    print("proposals", len(found["proposals"]), "scores", found["proposal_scores"][[0, -1]])
    print("class logits", spread(found["class_logits"]), "over boxes", f"{found['class_logits'].std(0).mean():.3g}")
    print("box deltas", spread(found["box_regression"]))
    print("detections", len(found["scores"]), found["scores"][:5], np.unique(found["classes"]).size, "classes")


def write_case():
    graph, image = case_graph(), CASE["images"][0]
    found = run(graph, image)
    settings = {**CASE, "tensorflow": tf.__version__, "margins": margins(graph, image, found)}
    (FIXTURES / "inception_v2.json").write_text(json.dumps(settings, indent=2) + "\n")
    (FIXTURES / "inception_v2.safetensors").write_bytes(save(sampled(stages(found, image))))


def search():
    for number in range(100):
        image = {**CASE["images"][0], "name": f"inception{number}"}
        graph = case_graph()
        found = run(graph, image)
        try:
            print(image["name"], len(found["scores"]), margins(graph, image, found), flush=True)
            return
        except ValueError as error:
            print(image["name"], error, flush=True)


def small_graph(year):
    options = {**SMALL, "scales": SMALL["scales"]}
    return Graph(own, options.pop("num_classes"), options.pop("depth_multiplier"), options.pop("min_depth"), year, **options)


def write_frozen(session, graph, folder):
    """The frozen graph of a session and its pipeline, in a folder that there is."""
    outputs = ["detection_boxes", "detection_scores", "detection_classes"]
    outputs = [next(n.name for n in session.graph.as_graph_def().node if n.name.endswith(o)) for o in outputs]
    frozen = v1.graph_util.convert_variables_to_constants(session, session.graph_def, outputs)
    (folder / "frozen_inference_graph.pb").write_bytes(frozen.SerializeToString())
    (folder / "pipeline.config").write_text(pipeline(graph))
    return frozen


def write_full_size(folder):
    """The detector of the published size on the rule's weights, for `bench/detect.py`."""
    graph = full_size(score_threshold=CASE["options"]["box_score_thresh"])
    folder.mkdir(parents=True)
    with tf.Graph().as_default(), v1.Session() as session:
        graph.build()
        session.run(v1.global_variables_initializer())
        write_frozen(session, graph, folder)


def write_small(year):
    folder = SMALL_MODELS / str(year)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    graph = small_graph(year)
    with tf.Graph().as_default(), v1.Session() as session:
        placeholder, tensors = graph.build()
        variables = v1.global_variables()
        slots = [v1.get_variable(f"{v.op.name}/Momentum", initializer=tf.zeros_like(v)) for v in variables]
        step = v1.train.get_or_create_global_step()
        session.run(v1.global_variables_initializer())
        found = session.run(tensors, {placeholder: picture(SMALL_IMAGE)})
        frozen = write_frozen(session, graph, folder)
        if year == 2018:
            v1.train.Saver(variables + slots + [step]).save(
                session, str(folder / "model.ckpt"), write_meta_graph=False
            )
            builder = v1.saved_model.Builder(str(folder / "saved_model"))
            builder.add_meta_graph_and_variables(session, ["serve"], saver=v1.train.Saver(variables))
            builder.save()
            (folder / "saved_model" / "saved_model.pb").unlink()  # large, and only its variables are read
        else:
            with tf.Graph().as_default(), v1.Session() as other:
                tf.import_graph_def(frozen, name="")
                builder = v1.saved_model.Builder(str(folder / "saved_model"))
                builder.add_meta_graph_and_variables(other, ["serve"])
                builder.save()
    names = ["cell", "platelet", "other"]
    items = [f'item {{\n  name: "{name}"\n  id: {number}\n}}\n' for number, name in enumerate(names, 1)]
    (folder / "label_map.pbtxt").write_text("".join(items))
    sizes = np.float32([SMALL_IMAGE["height"], SMALL_IMAGE["width"]] * 2)
    margins(graph, SMALL_IMAGE, found)
    detections = {
        "image": SMALL_IMAGE,
        "class_names": ["__background__", *names],
        "boxes": xyxy(found["boxes"] * sizes).tolist(),
        "labels": found["classes"].tolist(),
        "scores": found["scores"].tolist(),
    }
    (folder / "detections.json").write_text(json.dumps(detections) + "\n")
    print(year, len(found["scores"]), "detections,", sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()), "bytes")


def main():
    match sys.argv[1:]:
        case ["--measure"]:
            describe(run(case_graph(), CASE["images"][0]))
            for year in (2018, 2019):
                describe(run(small_graph(year), SMALL_IMAGE))
        case ["--search"]:
            search()
        case []:
            for year in (2018, 2019):
                write_small(year)
            write_case()
        case other:
            sys.exit(f"{other}: --measure, --search or nothing")


if __name__ == "__main__":
    main()
