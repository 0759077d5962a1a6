"""The training cases, in the form of cases.py. Written to train_<case>.json as they stand."""

import cases
from cases import HIGH, RAISED, gains

TRAINING = {
    "rpn_pre_nms_top_n_train": 200,
    "rpn_post_nms_top_n_train": 100,
    "rpn_batch_size_per_image": 64,
    "box_batch_size_per_image": 64,
    # Smaller than usual, so that the ground truth meets every level.
    "rpn_anchor_generator": {"sizes": [[16], [32], [64], [128], [256]], "aspect_ratios": [[0.5, 1.0, 2.0]] * 5},
}


def anchors(maps):
    """All sizes on each of some maps."""
    return {"rpn_anchor_generator": {"sizes": [[16, 32, 64, 128, 256]] * maps, "aspect_ratios": [[0.5, 1.0, 2.0]] * maps}}


POOL = {"box_roi_pool": {"featmap_names": ["0"], "output_size": [5, 5], "sampling_ratio": 2}}
NARROW = TRAINING | {"rpn_anchor_generator": {"sizes": [[16], [32], [64], [128]], "aspect_ratios": [[0.5, 1.0, 2.0]] * 4}}
MASK = {"layers": [12, 8], "dim_reduced": 8}
KEYPOINT = {"layers": [12, 8], "num_keypoints": 3}
BIASED = (0.25, 1, 4)  # RAISED over a body whose bias makes its maps four times as large


def case(name, arch, images, gains, boxes=(5, 5), options=None, trainable_layers=3, **others):
    """``boxes`` is how many ground-truth boxes each image gets."""
    images = [(n, *size) for n, size in zip(images, ((90, 141), (150, 100)))]
    found = cases.case(f"train_{name}", arch, 4, images, gains, TRAINING | (options or {}), **others)
    return {**found, "trainable_layers": trainable_layers, "boxes": list(boxes)}


def branches(name, images, gains, branches, visible=(True, True), **others):
    """A detector of few channels with mask and keypoint branches, small enough for every backend, and the losses of
    three steps of SGD, the least in which momentum shows. ``visible`` is whether the keypoints of each image are."""
    narrow = {"variant": "narrow", "returned_layers": [1, 2, 3], "out_channels": 16, "representation_size": 32}
    found = case(name, "resnet18", images, gains, options=NARROW, **narrow, **others)
    descent = {"count": 3, "sgd": {"lr": 0.001, "momentum": 0.9}}
    return {**found, "branches": branches, "visible": list(visible), "steps": descent}


# Batch norm gets a bias of 1, that of MobileNetV2 and of the keypoint model one of 1.5, and a VGG one of 4: without, so many
# units are near 0 that rounding alone moves a gradient by more than 1e-3, through those that ReLU lets pass or not. With 2,
# few units of a MobileNetV2 are outside of 0 to 6, and the gradients of most of its biases are zero but for rounding.
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
    case(
        "mobilenet_v3_fpn", "mobilenet_v3_large", ("trainv3/a~0", "trainv3/b~0"),
        gains(8, 1, 8, 4), boxes=(3, 4), options=anchors(3), variant="mobilenet",
    ),
    case(
        "mobilenet_v2_features", "mobilenet_v2", ("trainv2/a~0", "trainv2/b~0"),
        gains(8, 1, 8, 4), options=anchors(1) | POOL, norm="batch", body_bias=1.5, variant="features", representation_size=64,
    ),
    case(
        "vgg16_roi_pool", "vgg16", ("trainvgg/a~0", "trainvgg/b~0"),
        gains(0.03125, 0.0078125, 0.03125, 0.03125), options=anchors(1), norm="none", body_bias=4.0,
        variant="paper", trim=1, representation_size=64,
    ),
    branches(
        "mask", ("mask/a~4", "mask/b~4"),
        gains(0.25, 0.0625, 0.0625, 0.25, fpn=RAISED), {"mask": MASK},
    ),
    branches(
        "keypoint", ("keypoint/a~1", "keypoint/b~1"),
        gains(0.25, 0.0625, 0.0625, 0.25, fpn=BIASED), {"keypoint": KEYPOINT}, visible=(True, False),
        norm="batch", body_bias=1.5,
    ),
    branches(
        "mask_keypoint_empty", ("branches/a~1", "branches/b~1"),
        gains(0.25, 0.0625, 0.0625, 0.25, fpn=RAISED), {"mask": MASK, "keypoint": KEYPOINT},
        boxes=(5, 0), visible=(False, False),
    ),
]

# Cases of so many units near 0 that noise of 1e-6 on the weights tips some, and moves torchvision's own gradients by up to
# 6.1e-3 of their norm ("margins" in each JSON says how far); rounding itself does not. Only `train_mask` and
# `train_mask_keypoint_empty` among them are compared on other backends than Flex and CUDA.
ON_EDGE = {
    "train_mask",
    "train_mask_keypoint_empty",
    "train_resnet18_batchnorm",
    "train_resnet18_empty",
    "train_resnet18_frozen",
    "train_resnet50_batchnorm",
    "train_resnet50_frozen",
    "train_vgg16_roi_pool",
}
