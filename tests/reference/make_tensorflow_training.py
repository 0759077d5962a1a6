"""Writes fixtures/train_inception_v2.{json,safetensors}: TensorFlow's losses of one training step of the small model of
2018, and the gradient of their sum by every trained variable.

    python make_tensorflow_training.py            writes them
    python make_tensorflow_training.py --search   tries image suffixes until the case is robust

The step is the Object Detection API's: anchors that cross the border are left out, an object keeps the first of its best
anchors, proposals carry no gradient, Huber losses, statistics of norms are constants. Sampling is fixed, not random: the
first positives and the first negatives by index. Gradients stand under this project's names, in its layouts.
"""

import json
import math
import sys
from types import SimpleNamespace

import make_tensorflow as models
import numpy as np
import tensorflow as tf
from safetensors.numpy import save

v1 = tf.compat.v1
FIXTURE = models.FIXTURES / "train_inception_v2"
YEAR = 2018
ANCHORS, ROIS = (256, 0.5, 0.7, 0.3), (64, 0.25, 0.5, 0.5)  # sampled, share of objects, thresholds
LOSS_WEIGHTS = {"loss_objectness": 1.0, "loss_rpn_box_reg": 2.0, "loss_classifier": 1.0, "loss_box_reg": 2.0}
OBJECTS, KEEP = 4, 64
ROUNDING, NOISE = 1e-7, 1e-6
LOSS_SHIFT, GRADIENT_SHIFT = 2e-5, 2e-4  # relative: of a loss under NOISE, of a gradient under ROUNDING
IMAGE = {"name": "inception/train0", "height": 90, "width": 125}


def iou(a, b):
    """Of boxes `[N, 4]` and `[M, 4]`: `[N, M]`."""
    low, high = tf.maximum(a[:, None, :2], b[None, :, :2]), tf.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = tf.reduce_prod(tf.maximum(high - low, 0.0), 2)
    area = lambda boxes: tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], 1)
    return shared / (area(a)[:, None] + area(b)[None] - shared)


def match(objects, boxes, high, low, is_forced):
    """The object of each box; -1 of the background, -2 of neither."""
    quality = iou(objects, boxes)
    best = tf.reduce_max(quality, 0)
    found = tf.argmax(quality, 0, output_type=tf.int32)
    found = tf.where(best < low, -1, tf.where(best < high, -2, found))
    if is_forced:
        first = tf.one_hot(tf.argmax(quality, 1), tf.shape(boxes)[0])
        found = tf.where(tf.reduce_max(first, 0) > 0, tf.argmax(first, 0, output_type=tf.int32), found)
    return found


def sample(matches, count, share):
    """Indices of the first positives and of the first negatives."""
    positive = tf.where(matches >= 0)[: int(count * share), 0]
    negative = tf.where(tf.equal(matches, -1))[: count - tf.size(positive), 0]
    return positive, negative


def encode(objects, boxes):
    size = lambda b: b[:, 2:] - b[:, :2] + 1e-8
    centre = lambda b: (b[:, :2] + b[:, 2:]) / 2.0
    moved = (centre(objects) - centre(boxes)) / size(boxes) * 10.0
    return tf.concat([moved, tf.math.log(size(objects) / size(boxes)) * 5.0], 1)


def huber(deltas, targets):
    error = tf.abs(deltas - targets)
    return tf.reduce_sum(tf.where(error < 1.0, 0.5 * error * error, error - 0.5))


def cross_entropy(logits, labels):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))


def step(graph, objects, labels):
    """The placeholder of a picture, losses by name, and the tensors of the stages. Objects are in pixels of the resized
    image."""
    image, images = graph.image()
    window, objects, labels = graph.window(images), tf.constant(objects, tf.float32), tf.constant(labels)
    features, deltas, logits, anchors = graph.first_stage(images)
    inside = tf.where(tf.reduce_all((anchors[:, :2] >= window[:2]) & (anchors[:, 2:] <= window[2:]), 1))[:, 0]
    anchors = tf.gather(anchors, inside)
    deltas, logits = tf.gather(tf.reshape(deltas, [-1, 4]), inside), tf.gather(tf.reshape(logits, [-1, 2]), inside)

    count, share, high, low = ANCHORS
    matches = match(objects, anchors, high, low, True)
    positive, negative = sample(matches, count, share)
    sampled = tf.concat([positive, negative], 0)
    targets = encode(tf.gather(objects, tf.gather(matches, positive)), tf.gather(anchors, positive))
    losses = {
        "loss_objectness": cross_entropy(tf.gather(logits, sampled), tf.cast(tf.gather(matches, sampled) >= 0, tf.int32)),
        "loss_rpn_box_reg": huber(tf.gather(deltas, positive), targets) / tf.cast(tf.size(sampled), tf.float32),
    }
    stages = {"features": features, "images": images, "rpn": sampled, "rpn_matches": tf.gather(matches, sampled)}

    proposals = tf.stop_gradient(graph.propose(deltas, logits, anchors, window)[0])
    count, share, high, low = ROIS
    matches = match(objects, proposals, high, low, False)
    sampled = tf.sort(tf.concat(sample(matches, count, share), 0))
    matches, rois = tf.gather(matches, sampled), tf.gather(proposals, sampled)
    _, _, deltas, logits = graph.second_stage(features, rois, window)
    positive = tf.where(matches >= 0)[:, 0]
    classes = tf.where(matches >= 0, tf.gather(labels, tf.maximum(matches, 0)), 0)
    targets = encode(tf.gather(objects, tf.gather(matches, positive)), tf.gather(rois, positive))
    deltas = tf.reshape(deltas, [-1, graph.num_classes, 4])
    deltas = tf.gather_nd(deltas, tf.stack([tf.cast(positive, tf.int32), tf.gather(classes, positive) - 1], 1))
    losses |= {
        "loss_classifier": cross_entropy(logits, classes),
        "loss_box_reg": huber(deltas, targets) / tf.cast(tf.size(sampled), tf.float32),
    }
    stages |= {"proposals": proposals, "roi": sampled, "roi_matches": matches}
    return image, {name: LOSS_WEIGHTS[name] * loss for name, loss in losses.items()}, stages


def arranged(variable, value):
    """The gradient of a variable as that of the parameter that it becomes."""
    outputs = value.shape[-1]
    if "BoxEncodingPredictor" in variable:
        rows = value.reshape(-1, outputs).T
        rows = rows.reshape(-1, 2, 2, rows.shape[1])[:, :, ::-1].reshape(rows.shape)  # y, x, h, w -> x, y, w, h
        background = 4 if variable.startswith("SecondStage") else 0
        rows = np.concatenate([np.zeros_like(rows[:background]), rows])
        return rows.reshape(len(rows), *([] if value.ndim == 1 else [-1]))
    if variable.startswith("FirstStageBoxPredictor/ClassPredictor"):
        background, objects = value[..., ::2], value[..., 1::2]
        assert np.abs(background + objects).max() <= 1e-6 * np.abs(objects).max()
        return objects.reshape(-1, outputs // 2).T.reshape(outputs // 2, *([] if value.ndim == 1 else [-1]))
    if variable.endswith("depthwise_weights"):
        return value.transpose(2, 3, 0, 1).reshape(-1, 1, *value.shape[:2])
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T


def run(graph, image, objects, labels):
    with tf.Graph().as_default(), v1.Session() as session:
        placeholder, losses, stages = step(graph, objects, labels)
        variables = [v for v in v1.trainable_variables() if "/moving_" not in v.name]
        gradients = tf.gradients(tf.add_n(list(losses.values())), variables)
        session.run(v1.global_variables_initializer())
        fetched = session.run([losses, stages, gradients], {placeholder: models.picture(image)})
    gradients = {models.parameter(v.op.name): arranged(v.op.name, g) for v, g in zip(variables, fetched[2])}
    return SimpleNamespace(losses={n: float(l) for n, l in fetched[0].items()}, stages=fetched[1], gradients=gradients)


def ground_truth(graph, image):
    """Boxes near the model's own proposals, `[x1, y1, x2, y2]` in quarter pixels of the picture: of each the first that
    overlaps no box chosen before, narrowed by a tenth on the left and an eighth at the top."""
    found = models.run(graph, image)
    scale = np.float32([image["height"], image["width"]] * 2) / np.float32(found["images"].shape[1:3] * 2)
    chosen = np.zeros([0, 4], np.float32)
    for box in found["proposals"].astype(np.float64) * scale:
        box[:2] += (box[2:] - box[:2]) * [0.125, 0.1]
        box = np.round(box * 4) / 4
        overlaps = len(chosen) and iou(tf.constant(box[None], tf.float32), tf.constant(chosen, tf.float32)).numpy().max() > 0.3
        if len(chosen) < OBJECTS and (box[2:] - box[:2]).min() > 4 and not overlaps:
            chosen = np.concatenate([chosen, box[None].astype(np.float32)])
    # As the API has them: as shares of the image, then in pixels of the resized one.
    return models.xyxy(chosen), chosen / scale, np.arange(len(chosen), dtype=np.int32) % models.SMALL["num_classes"] + 1


def compare(a, b, loss_shift, gradient_shift):
    """The largest changes of losses and gradients; raises where another is sampled, or one moves far."""
    for name in ("rpn", "rpn_matches", "roi", "roi_matches"):
        if not np.array_equal(a.stages[name], b.stages[name]):
            raise ValueError(f"another {name}")
    loss = max(abs(a.losses[n] - b.losses[n]) / abs(a.losses[n]) for n in a.losses)
    norm = np.linalg.norm
    gradient, worst = max((norm(a.gradients[n] - b.gradients[n]) / norm(a.gradients[n]), n) for n in a.gradients)
    if loss > loss_shift or gradient > gradient_shift:
        raise ValueError(f"a loss moves by {loss:.3g}, the gradient of {worst} by {gradient:.3g}")
    return {"loss": float(f"{loss:.2e}"), "gradient_norm": float(f"{gradient:.2e}")}


def margins(graph, image, found, objects, labels):
    result = {}
    for name, relative, limits in (("rounding", ROUNDING, (LOSS_SHIFT, GRADIENT_SHIFT)), ("noise", NOISE, (LOSS_SHIFT, math.inf))):
        noisy = (run(models.noisy(graph, seed, relative), image, objects, labels) for seed in range(3))
        moved = [compare(found, other, *limits) for other in noisy]
        result[name] = {"relative": relative} | {k: max(m[k] for m in moved) for k in moved[0]}
    return result


def step_of(image):
    graph = models.small_graph(YEAR)
    boxes, objects, labels = ground_truth(graph, image)
    found = run(graph, image, objects, labels)
    counts = {
        "anchors": [int((found.stages["rpn_matches"] >= 0).sum()), int((found.stages["rpn_matches"] < 0).sum())],
        "rois": [int((found.stages["roi_matches"] == i).sum()) for i in range(-1, len(boxes))],
    }
    print(image["name"], found.losses, counts, flush=True)
    if min(counts["rois"][0], sum(counts["rois"][1:])) < 2:
        raise ValueError("too few proposals of objects or of the background")
    record = {
        "images": [image],
        "year": YEAR,
        "tensorflow": tf.__version__,
        "norm": "fixed",
        "sampler": "first",
        "targets": [{"boxes": boxes.tolist(), "labels": labels.tolist()}],
        "losses": found.losses,
        "sampled": counts,
        "margins": margins(graph, image, found, objects, labels),
        "frozen": [],
        "gradient_norms": {n: float(np.linalg.norm(g.astype(np.float64))) for n, g in found.gradients.items()},
    }
    planes = lambda x: np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    tensors = {"transform.images": planes(found.stages["images"]), "features.0": planes(found.stages["features"])}
    gradients = {f"gradient.{n}": np.ascontiguousarray(g) for n, g in found.gradients.items()}
    return record, models.sampled(tensors, 256) | models.sampled(gradients, KEEP)


def main():
    match sys.argv[1:]:
        case ["--search"]:
            for number in range(100):
                try:
                    record, _ = step_of({**IMAGE, "name": f"inception/train{number}"})
                    return print(record["margins"])
                except ValueError as error:
                    print(error, flush=True)
        case []:
            record, tensors = step_of(IMAGE)
            FIXTURE.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
            FIXTURE.with_suffix(".safetensors").write_bytes(save(tensors))
        case other:
            sys.exit(f"{other}: --search or nothing")


if __name__ == "__main__":
    main()
