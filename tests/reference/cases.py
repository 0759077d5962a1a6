"""The model cases: what is built, the gains and the images. Written to <case>.json as they stand."""

RPN_CLASS = "rpn.head.cls_logits.weight"
RPN_BOX = "rpn.head.bbox_pred.weight"
CLASS = "roi_heads.box_predictor.cls_score.weight"
CLASS_BIAS = "roi_heads.box_predictor.cls_score.bias"
BOX = "roi_heads.box_predictor.bbox_pred.weight"
TOP_N = {"rpn_pre_nms_top_n_test": 200, "rpn_post_nms_top_n_test": 60}


def gains(rpn_class, rpn_box, cls, box, bias=1, fpn=()):
    """Gains of the output layers; ``bias`` of the class scores', ``fpn`` by level, to even them out."""
    found = {RPN_CLASS: rpn_class, RPN_BOX: rpn_box, CLASS: cls, BOX: box, CLASS_BIAS: bias}
    found |= {f"backbone.fpn.layer_blocks.{level}.0.weight": gain for level, gain in enumerate(fpn)}
    return {key: float(gain) for key, gain in found.items() if gain != 1}


def case(name, arch, num_classes, images, gains, options=None, norm="frozen", variant="v1", **others):
    return {
        "case": name,
        "arch": arch,
        "norm": norm,
        "variant": variant,
        "num_classes": num_classes,
        **others,
        "options": {"min_size": [128], "max_size": 224, **TOP_N, **(options or {})},
        "gains": gains,
        "images": [{"name": n, "height": h, "width": w} for n, h, w in images],
    }


FOUR_SIZES = {"sizes": [[32], [64], [128], [256]], "aspect_ratios": [[0.5, 1.0, 2.0]] * 4}
FIVE_SIZES = {"sizes": [[32, 64, 128, 256, 512]] * 3, "aspect_ratios": [[0.5, 1.0, 2.0]] * 3}
HIGH = (1, 1, 4, 8)  # raises the upper levels, so that some proposals come from them
RAISED = (1, 4, 16)  # the same for a pyramid of few channels


def plain(min_size, max_size, **pool):
    """Options of a detector over one map, as in torchvision's tutorial."""
    return {
        "min_size": [min_size],
        "max_size": max_size,
        "rpn_anchor_generator": {"sizes": [[32, 64, 128, 256, 512]], "aspect_ratios": [[0.5, 1.0, 2.0]]},
        "box_roi_pool": {"featmap_names": ["0"], "output_size": [7, 7], "sampling_ratio": 2, **pool},
    }


FIVE = {"output_size": [5, 5]}
NARROW = {"variant": "features", "representation_size": 64}  # a small box head, so that the case is quick
THREE_SIZES = {"sizes": [[32, 64, 128]], "aspect_ratios": [[0.5, 1.0, 2.0]]}

CASES = [
    case(
        "resnet18_frozen", "resnet18", 4, [("resnet18/a~20", 90, 141), ("resnet18/b~20", 150, 100)],
        gains(0.25, 0.0625, 0.25, 0.25, bias=16, fpn=HIGH),
    ),
    case(
        "resnet18_batchnorm", "resnet18", 91, [("batchnorm~2", 120, 97)],
        gains(0.25, 0.0625, 0.5, 0.25, bias=16, fpn=HIGH), norm="batch",
    ),
    case(
        "resnet50_frozen", "resnet50", 91, [("resnet50/a~2", 140, 101), ("resnet50/b~2", 96, 131)],
        gains(0.5, 0.0625, 2.0, 0.25, bias=128, fpn=HIGH), {"rpn_post_nms_top_n_test": 40},
    ),
    case(
        "resnet50_v2", "resnet50", 91, [("v2~0", 111, 150)],
        gains(1.0, 0.25, 32, 4.0, bias=8, fpn=HIGH), {"rpn_post_nms_top_n_test": 40}, norm="batch", variant="v2",
    ),
    case(
        "resnet101_frozen", "resnet101", 4, [("resnet101~4", 130, 90)],
        gains(0.25, 0.0625, 0.5, 0.25, bias=16, fpn=HIGH),
    ),
    case(
        "resnext50_32x4d_frozen", "resnext50_32x4d", 4, [("resnext50~0", 100, 150)],
        gains(0.5, 0.0625, 0.5, 0.25, bias=16, fpn=HIGH),
    ),
    case(
        "wide_resnet50_2_frozen", "wide_resnet50_2", 4, [("wide50~0", 140, 120)],
        gains(0.5, 0.0625, 0.25, 0.25, bias=8, fpn=HIGH),
    ),
    case(
        "resnet34_layers23", "resnet34", 4, [("resnet34~0", 128, 150)],
        gains(0.125, 0.0078125, 0.125, 0.125, bias=8, fpn=(1, 8)),
        {
            "min_size": [256],
            "max_size": 320,
            "rpn_post_nms_top_n_test": 40,
            "rpn_anchor_generator": {
                "sizes": [[32], [128], [640]],
                "aspect_ratios": [[0.5, 1.0, 2.0]] * 3,
            },
            "box_roi_pool": {"featmap_names": ["0", "1"], "output_size": [7, 7], "sampling_ratio": 2},
        },
        returned_layers=[2, 3],
    ),
    case(
        "resnet18_shapes", "resnet18", 4,
        [("shapes/wide~7", 7, 300), ("shapes/dot~7", 1, 1), ("shapes/small~7", 33, 32)],
        gains(0.5, 0.125, 0.25, 0.25, bias=16, fpn=HIGH),
    ),
    case(
        "resnet18_options", "resnet18", 4, [("options/a~0", 100, 140), ("options/b~0", 160, 110)],
        gains(0.5, 0.0625, 1.0, 0.25, bias=128, fpn=HIGH),
        {
            "min_size": [120, 136],
            "max_size": 230,
            "image_mean": [0.5, 0.4, 0.3],
            "image_std": [0.25, 0.2, 0.3],
            "size_divisible": 64,
            "rpn_anchor_generator": {
                "sizes": [[32], [64], [128], [256], [512]],
                "aspect_ratios": [[0.5, 1.0, 2.0, 3.0]] * 5,
            },
            "rpn_score_thresh": 0.3,
            "rpn_nms_thresh": 0.6,
            "box_score_thresh": 0.1,
            "box_nms_thresh": 0.3,
            "box_detections_per_img": 7,
            "bbox_reg_weights": [5.0, 5.0, 2.5, 2.5],
            "box_roi_pool": {"featmap_names": ["0", "1", "2", "3"], "output_size": [5, 5], "sampling_ratio": 0},
        },
    ),
    case(
        "resnet18_fixed_size", "resnet18", 4, [("fixed/a~0", 100, 90), ("fixed/b~0", 75, 140)],
        gains(0.25, 0.0625, 0.25, 0.25, bias=16, fpn=HIGH), {"fixed_size": [160, 128]},
    ),
    case(
        "resnet18_levels", "resnet18", 4, [("levels~6", 260, 340)],
        gains(0.125, 0.03125, 0.25, 0.125, bias=16, fpn=(1, 4, 8, 16)), {"min_size": [256], "max_size": 352},
    ),
    case(
        "mobilenet_v3_large_320", "fasterrcnn_mobilenet_v3_large_320_fpn", 91, [("mobile320~4", 240, 330)],
        gains(8, 1, 32, 4, bias=16),
        {"min_size": [320], "max_size": 640, "rpn_pre_nms_top_n_test": 150, "rpn_post_nms_top_n_test": 150},
        norm="batch", variant="builder",
    ),
    case(
        "mobilenet_v3_large_frozen", "mobilenet_v3_large", 4, [("mobile/a~0", 100, 141), ("mobile/b~0", 150, 110)],
        gains(8, 1, 32, 4, bias=16),
        {"min_size": [256], "max_size": 400, "rpn_anchor_generator": FIVE_SIZES, "rpn_score_thresh": 0.95}, variant="mobilenet",
    ),
    case(
        "mobilenet_v3_small_frozen", "mobilenet_v3_small", 4, [("small~0", 120, 150)],
        gains(8, 1, 32, 4, bias=16),
        {"min_size": [256], "max_size": 400, "rpn_anchor_generator": FIVE_SIZES}, variant="mobilenet",
    ),
    case(
        "mobilenet_v2_features", "mobilenet_v2", 4, [("features/v2~0", 128, 160)],
        gains(8, 1, 32, 4, bias=16), plain(256, 400), norm="batch", variant="features",
    ),
    case(
        "mobilenet_v3_large_features", "mobilenet_v3_large", 4, [("features/large~1", 130, 150)],
        gains(8, 1, 32, 4, bias=16), plain(256, 400, **FIVE), norm="batch", **NARROW,
    ),
    case(
        "mobilenet_v3_small_features", "mobilenet_v3_small", 4, [("features/small~0", 130, 150)],
        gains(8, 1, 32, 4, bias=16), plain(256, 400), norm="frozen", variant="features",
    ),
    case(
        "vgg16_features", "vgg16", 4, [("features/vgg16~0", 100, 130)],
        gains(0.25, 0.0625, 0.5, 0.25, bias=4), plain(160, 224, **FIVE), norm="none", **NARROW,
    ),
    case(
        "vgg11_bn_features", "vgg11_bn", 4, [("features/vgg11_bn~0", 130, 100)],
        gains(8, 1, 32, 4, bias=16), plain(192, 256, **FIVE), norm="batch", **NARROW,
    ),
    case(
        "vgg16_roi_pool", "vgg16", 4, [("roi_pool/a~2", 100, 130), ("roi_pool/b~2", 120, 90)],
        gains(0.25, 0.0625, 0.5, 0.25, bias=4), {"rpn_anchor_generator": THREE_SIZES}, norm="none",
        variant="paper", trim=1, representation_size=64,
    ),
    case(
        "custom_backbone", "custom", 4, [("custom/a~0", 110, 140), ("custom/b~0", 128, 96)],
        gains(2.0, 0.25, 2.0, 1.0),
        {
            "rpn_post_nms_top_n_test": 40,
            "rpn_anchor_generator": {"sizes": [[16, 32, 64, 128]], "aspect_ratios": [[0.5, 1.0, 2.0]]},
            "box_roi_pool": {"featmap_names": ["0"], "output_size": [7, 7], "sampling_ratio": 2},
        },
        norm="none", variant="custom",
    ),
    case(
        "mask_keypoint", "resnet18", 4, [("shapes/a~0", 90, 141), ("shapes/b~0", 150, 100)],
        gains(0.25, 0.0625, 0.25, 0.25, bias=16, fpn=RAISED),
        {"rpn_anchor_generator": FOUR_SIZES, "box_detections_per_img": 8},
        variant="narrow", returned_layers=[1, 2, 3], out_channels=16, representation_size=32,
        branches={"mask": {"layers": [12, 8], "dim_reduced": 8}, "keypoint": {"layers": [12, 8], "num_keypoints": 3}},
    ),
]

# Too large for every run of the tests: written when they are named, and compared with PARITY_CASES=vgg16_paper,... set.
FULL_SIZE = [
    case(
        "vgg16_paper", "vgg16", 21, [("paper~0", 300, 400)],
        gains(1.0, 0.25, 1.0, 0.5, bias=4), {"min_size": [384], "max_size": 640},
        norm="none", variant="paper", trim=1,
    ),
    case(
        "vgg16_tutorial", "vgg16", 4, [("tutorial~0", 300, 400)],
        gains(0.25, 0.0625, 0.5, 0.25, bias=4), plain(384, 640),
        norm="none", variant="features",
    ),
]
