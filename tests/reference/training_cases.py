"""The training cases, in the form of cases.py. Written to train_<case>.json as they stand."""

import cases
from cases import HIGH, gains

TRAINING = {
    "rpn_pre_nms_top_n_train": 200,
    "rpn_post_nms_top_n_train": 100,
    "rpn_batch_size_per_image": 64,
    "box_batch_size_per_image": 64,
    # Smaller than usual, so that the ground truth meets every level.
    "rpn_anchor_generator": {"sizes": [[16], [32], [64], [128], [256]], "aspect_ratios": [[0.5, 1.0, 2.0]] * 5},
}


def case(name, arch, images, gains, boxes=(5, 5), **others):
    """``boxes`` is how many ground-truth boxes each image gets."""
    images = [(n, *size) for n, size in zip(images, ((90, 141), (150, 100)))]
    found = cases.case(f"train_{name}", arch, 4, images, gains, TRAINING, **others)
    return {**found, "trainable_layers": 3, "boxes": list(boxes)}


# Batch norm gets a bias of 1: without, so many units are near 0 that rounding alone moves a gradient
# by more than 1e-3, through those that ReLU lets pass or not.
CASES = [
    case(
        "resnet18_frozen", "resnet18", ("train18/a~3", "train18/b~3"),
        gains(0.25, 0.0625, 0.0625, 0.25, fpn=HIGH),
    ),
    case(
        "resnet18_empty", "resnet18", ("empty/a~0", "empty/b~0"),
        gains(0.25, 0.0625, 0.0625, 0.25, fpn=HIGH), boxes=(5, 0),
    ),
    case(
        "resnet18_batchnorm", "resnet18", ("train18/a~1", "train18/b~1"),
        gains(0.125, 0.03125, 0.0625, 0.125, fpn=HIGH), norm="batch", body_bias=1.0,
    ),
    case(
        "resnet50_frozen", "resnet50", ("train50/a~4", "train50/b~4"),
        gains(0.5, 0.0625, 0.25, 0.25, fpn=HIGH),
    ),
    case(
        "resnet50_batchnorm", "resnet50", ("train50/a~0", "train50/b~0"),
        gains(0.0625, 0.0078125, 0.03125, 0.0625, fpn=HIGH), norm="batch", body_bias=1.0,
    ),
]
