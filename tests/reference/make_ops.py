"""Writes fixtures/ops.safetensors and ops.json: torchvision's operations on awkward inputs.

Tensors are named ``<op>/<case>/<input or output>`` and keep their shapes; ops.json lists every
``<op>/<case>`` with its scalar arguments.
"""

import itertools
import json
import pathlib

import torch
from safetensors.torch import save
from torch.nn import functional as F
from torchvision import ops
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops.poolers import LevelMapper, MultiScaleRoIAlign, _infer_scale

import synthetic

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
TENSORS, SCALARS = {}, {}


def put(case, scalars=None, **tensors):
    assert case not in SCALARS, case
    SCALARS[case] = scalars or {}
    for name, value in tensors.items():
        TENSORS[f"{case}/{name}"] = value.detach().clone(memory_format=torch.contiguous_format)


def rule(key, shape, low=-1.0, high=1.0):
    """The rule's numbers for a key, spread over an interval."""
    s = torch.from_numpy(synthetic.signed(key, shape))
    return (low + high) / 2 + (high - low) / 2 * s


def random_boxes(key, count, extent=100.0, smallest=4.0, largest=40.0):
    corner = rule(f"{key}/corner", (count, 2), 0, extent - largest)
    return torch.cat([corner, corner + rule(f"{key}/size", (count, 2), smallest, largest)], 1)


AWKWARD = torch.tensor(
    [
        [0, 0, 10, 10],
        [5, 5, 15, 20],
        [0, 0, 10, 10],  # a duplicate
        [10, 0, 20, 10],  # shares an edge
        [3, 3, 3, 9],  # no width
        [4, 7, 9, 7],  # no height
        [6, 6, 6, 6],  # a point
        [-5, -7, 4, 2.5],
        [95.5, 90, 130, 120],
        [-20, -20, -10, -10],
        [200, 200, 210, 220],
        [1e-3, 1e-3, 2e-3, 2e-3],
        [8, 9, 2, 1],  # reversed
        [0, 0, 1e5, 1e5],
        [0, 0, 0.01, 0.01],  # as f32, just under the f64 limit
    ]
)


def boxes():
    put("box_area/awkward", boxes=AWKWARD, areas=ops.box_area(AWKWARD))
    a, b = random_boxes("iou/a", 9), random_boxes("iou/b", 7)
    put("box_iou/random", boxes1=a, boxes2=b, iou=ops.box_iou(a, b))
    put("box_iou/awkward", boxes1=AWKWARD, boxes2=AWKWARD, iou=ops.box_iou(AWKWARD, AWKWARD))
    none = torch.zeros(0, 4)
    put("box_iou/empty", boxes1=none, boxes2=a, iou=ops.box_iou(none, a))
    for name, size in (("square", (100, 100)), ("wide", (7, 300)), ("dot", (1, 1))):
        clipped = ops.clip_boxes_to_image(AWKWARD, size)
        put(f"clip_boxes_to_image/{name}", {"size": size}, boxes=AWKWARD, clipped=clipped)
        small = resize_boxes(clipped, size, (33, 57))
        put(f"resize_boxes/{name}", {"from": size, "to": (33, 57)}, boxes=clipped, resized=small)
    for name, size in (("rpn", 1e-3), ("detections", 1e-2), ("one", 1.0), ("ten", 10.0), ("zero", 0.0)):
        put(f"remove_small_boxes/{name}", {"min_size": size}, boxes=AWKWARD, keep=ops.remove_small_boxes(AWKWARD, size))


def put_nms(name, boxes, scores, threshold):
    keep = ops.nms(boxes, scores, threshold)
    put(f"nms/{name}", {"iou_threshold": threshold}, boxes=boxes, scores=scores, keep=keep)


def nms():
    many = random_boxes("nms", 80, 70.0)
    scores = rule("nms/scores", (80,), 0, 1)
    for threshold in (0.0, 0.3, 0.5, 0.7, 1.0):
        put_nms(f"random_{threshold:g}", many, scores, threshold)
    put_nms("ties", many, (scores * 6).floor() / 6, 0.3)
    put_nms("all_tied", many, torch.full((80,), 0.5), 0.3)
    put_nms("identical", many[:1].repeat(5, 1), torch.tensor([0.1, 0.9, 0.9, 0.3, 0.2]), 0.5)
    put_nms("awkward", AWKWARD, rule("nms/awkward", (len(AWKWARD),), 0, 1), 0.5)
    put_nms("zero_area", AWKWARD[4:7].repeat(2, 1), torch.tensor([0.5, 0.6, 0.7, 0.8, 0.9, 0.4]), 0.0)
    put_nms("empty", torch.zeros(0, 4), torch.zeros(0), 0.5)
    put_nms("single", many[:1], scores[:1], 0.5)
    # An overlap of exactly tenths/10: f32 rounds it above or below the f64 threshold.
    for tenths in range(1, 10):
        pair = torch.tensor([[0, 0, 10, 1], [0, 0, tenths, 1]], dtype=torch.float32)
        put_nms(f"at_threshold_0.{tenths}", pair, torch.tensor([0.9, 0.8]), tenths / 10)


def batched_nms():
    def case(name, boxes, scores, classes, threshold):
        keep = ops.batched_nms(boxes, scores, classes, threshold)
        put(f"batched_nms/{name}", {"iou_threshold": threshold}, boxes=boxes, scores=scores, classes=classes, keep=keep)

    # Above 1000 boxes torchvision goes class by class, up to there it offsets the coordinates.
    for count in (90, 1000, 1001):
        many = random_boxes(f"batched/{count}", count, 70.0)
        scores = rule(f"batched/{count}/scores", (count,), 0, 1)
        classes = rule(f"batched/{count}/classes", (count,), 0, 5).long()
        case(f"{count}", many, scores, classes, 0.5)
    many, scores = random_boxes("batched/small", 40, 60.0), rule("batched/small/scores", (40,), 0, 1)
    classes = torch.arange(40) % 4
    case("one_class", many, scores, torch.full((40,), 3), 0.5)
    case("ties", many, (scores * 5).floor() / 5, classes, 0.4)
    case("same_boxes", many[:1].repeat(8, 1), scores[:8], classes[:8], 0.5)
    case("far_classes", many, scores, classes * 30, 0.5)
    case("empty", torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5)
    # The offset of class 1 is the largest coordinate plus one, so its negative box meets class 0's.
    pair = torch.tensor([[0.0, 0, 9, 9], [-10, -10, -1, -1]])
    case("negative_coordinates", pair, torch.tensor([0.9, 0.8]), torch.tensor([0, 1]), 0.5)


def box_coder():
    anchors, truth = random_boxes("coder/anchors", 12), random_boxes("coder/truth", 12)
    flat = torch.tensor([[0.0, 0, 10, 10], [5, 5, 5, 9], [2, 2, 8, 12]])
    point = torch.tensor([[3.0, 4, 3, 9], [0, 0, 10, 10], [2, 2, 8, 12]])
    for name, weights in (("rpn", (1.0, 1.0, 1.0, 1.0)), ("roi", (10.0, 10.0, 5.0, 5.0))):
        coder = BoxCoder(weights)
        scalars = {"weights": weights}
        put(f"box_encode/{name}", scalars, anchors=anchors, boxes=truth, codes=coder.encode_single(truth, anchors))
        put(f"box_encode/{name}_degenerate", scalars, anchors=flat, boxes=point, codes=coder.encode_single(point, flat))
        for classes in (1, 4):
            codes = rule(f"coder/{name}/{classes}", (12, 4 * classes)) * torch.tensor(weights).repeat(classes)
            codes[0, 2], codes[0, 3] = 100.0, coder.bbox_xform_clip * weights[3]  # clamped, at the clamp
            codes[1, 2:4], codes[2, :2] = -30.0 * weights[2], 50.0
            decoded = coder.decode(codes, [anchors[:5], anchors[5:]])
            put(f"box_decode/{name}_{classes}", scalars, anchors=anchors, codes=codes, boxes=decoded)


def anchors():
    pyramid = tuple((s,) for s in (32, 64, 128, 256, 512))
    for name, sizes, ratios, image, grids in (
        ("pyramid", pyramid, ((0.5, 1.0, 2.0),) * 5, (96, 128), ((24, 32), (12, 16), (6, 8), (3, 4), (2, 2))),
        ("one_map", ((32, 64, 128),), ((0.5, 1.0, 2.0),), (64, 96), ((4, 6),)),
        ("uneven_stride", ((16,), (24, 40)), ((1.0,), (0.5, 3.0)), (100, 77), ((7, 5), (3, 4))),
        ("half_to_even", ((1, 3, 5, 7),), ((0.25, 1.0, 4.0),), (2, 6), ((1, 3),)),
        ("dot", pyramid, ((0.5, 1.0, 2.0),) * 5, (32, 32), ((8, 8), (4, 4), (2, 2), (1, 1), (1, 1))),
    ):
        generator = AnchorGenerator(sizes, ratios)
        batch = ImageList(torch.zeros(1, 1, *image), [image])
        out = generator(batch, [torch.zeros(1, 1, *grid) for grid in grids])[0]
        cells = {f"cell.{i}": cell for i, cell in enumerate(generator.cell_anchors)}
        scalars = {"sizes": sizes, "aspect_ratios": ratios, "image_size": image, "grids": grids}
        put(f"anchors/{name}", scalars, anchors=out, **cells)


# On a 12 x 15 map: image index, then x1, y1, x2, y2.
ROIS = torch.tensor(
    [
        [0, 2.3, 1.7, 9.1, 8.4],
        [0, 1, 2, 8, 9],
        [0, 2.5, 1.5, 6.5, 7.5],  # halves, for rounding
        [0, 0, 0, 15, 12],  # the whole map
        [0, 14, 11, 15, 12],
        [0, 14.5, 11.5, 16, 13],
        [0, -4, -3, 6, 5],
        [0, -1, -1, -0.5, -0.5],
        [0, -30, -30, -20, -22],
        [2, 40, 40, 55, 50],
        [2, 5.2, 5.3, 5.4, 5.6],  # under a pixel
        [2, 7, 7, 7, 7],
        [2, -100, -80, 120, 90],
        [2, 9, 8, 3, 2],  # reversed
        [2, 3, 8, 9, 2],
        [0, 12.6, 0.2, 14.9, 11.7],
    ]
)
HALF_REVERSED = 14


def put_pool(case, function, scalars, x, rois):
    x = x.clone().requires_grad_()
    out = function(x, rois, **scalars)
    upstream = rule(f"{case}/upstream", tuple(out.shape))
    (out * upstream).sum().backward()
    put(case, scalars, input=x, rois=rois, output=out, upstream=upstream, input_grad=x.grad)


def roi_pooling():
    x = rule("roi/input", (3, 2, 12, 15))
    kinds = {
        "no_rois": (x, torch.zeros(0, 5)),
        "dot_map": (rule("roi/dot", (1, 3, 1, 1)), torch.tensor([[0, 0, 0, 1, 1], [0, -2, -2, 3, 3], [0, 0.2, 0.3, 0.4, 0.5]])),
        "one_row": (rule("roi/row", (1, 2, 1, 24)), torch.tensor([[0, 1, 0, 20, 1], [0, -3, -1, 30, 4.0]])),
        "flat_map": (torch.full((1, 2, 6, 6), 0.5), torch.tensor([[0, 0.6, 1.2, 4.8, 5.1]])),
        "order": (x, ROIS[[15, 9, 0, 10, 3]]),  # images not in order
        # Hundreds on one image, none on the next.
        "crowd": (rule("roi/crowd", (2, 2, 20, 35)), F.pad(random_boxes("roi/crowd/rois", 300, 36.0, 0.5, 30.0), (1, 0))),
    }
    sizes, scales = ((7, 7), (1, 1), (3, 5)), (1.0, 0.25)
    for size, scale in itertools.product(sizes, scales):
        rois = ROIS * torch.tensor([1, 1 / scale, 1 / scale, 1 / scale, 1 / scale])
        name = f"{size[0]}x{size[1]}_scale{scale:g}"
        common = {"output_size": size, "spatial_scale": scale}
        put_pool(f"roi_pool/{name}", ops.roi_pool, common, x, rois)
        for ratio, aligned in itertools.product((-1, 0, 1, 2, 3), (False, True)):
            # The large boxes take thousands of samples a bin: of the adaptive ratio, which is whatever is not
            # positive, one case for each size, and one more.
            if ratio == 0 and scale == 1 or ratio == -1 and name != "1x1_scale1":
                continue
            case = f"roi_align/{name}_ratio{ratio}{'_aligned' if aligned else ''}"
            # torchvision's CPU kernel raises on a roi reversed along one side only, if aligned and adaptive.
            taken = rois[torch.arange(len(rois)) != HALF_REVERSED] if aligned and ratio <= 0 else rois
            put_pool(case, ops.roi_align, {**common, "sampling_ratio": ratio, "aligned": aligned}, x, taken)
    for kind, (x, rois) in kinds.items():
        common = {"output_size": (2, 3), "spatial_scale": 1.0}
        put_pool(f"roi_pool/{kind}", ops.roi_pool, common, x, rois)
        for ratio, aligned in itertools.product((0, 2), (False, True)):
            case = f"roi_align/{kind}_ratio{ratio}{'_aligned' if aligned else ''}"
            put_pool(case, ops.roi_align, {**common, "sampling_ratio": ratio, "aligned": aligned}, x, rois)


def levels():
    sides = [0, 1, 56, 111.99, 112, 112.01, 150, 223.99, 223.99995, 224, 224.01, 447.98, 448, 448.02, 900, 5000]
    squares = torch.tensor([[0, 0, side, side] for side in sides])
    others = torch.tensor([[10, 20, 122, 132], [3, 5, 451, 117], [1, 2, 225, 226], [0, 0, 896, 56], [64, 32, 512, 480.0]])
    found = torch.cat([squares, others])
    for low, high, scale, level in ((2, 5, 224, 4), (3, 4, 224, 4), (2, 5, 56, 3)):
        scalars = {"k_min": low, "k_max": high, "canonical_scale": scale, "canonical_level": level}
        name = f"{low}to{high}_scale{scale}_level{level}"
        put(f"level_mapper/{name}", scalars, boxes=found, levels=LevelMapper(low, high, scale, level)([found]))

    features = {n: rule(f"levels/{n}", (2, 2, h, w)) for n, h, w in (("0", 16, 20), ("1", 8, 10), ("2", 4, 5), ("3", 2, 3))}
    features["pool"] = rule("levels/pool", (2, 2, 1, 2))
    images = [(64, 80), (50, 72)]
    near = torch.tensor([[2, 3, 16, 17], [1, 1, 29, 29], [4, 2, 60, 58], [0, 0, 80, 64], [7.3, 9.1, 20.2, 30.8], [5, 5, 5.5, 6]])
    for name, names, size, ratio, scale, boxes in (
        ("default", ["0", "1", "2", "3"], 7, 2, 224, [squares[:10], torch.cat([squares[10:], others])]),
        ("small_scale", ["0", "1", "2", "3"], (2, 3), 2, 28, [near, near[:3] + 1]),
        ("adaptive", ["0", "1", "2", "3"], 3, 0, 28, [near, near[:3] + 1]),
        ("none_on_first", ["0", "1", "2", "3"], 2, 2, 28, [torch.zeros(0, 4), near]),
        ("no_boxes", ["0", "1", "2", "3"], 2, 2, 28, [torch.zeros(0, 4), torch.zeros(0, 4)]),
        ("two_maps", ["1", "2"], 2, 2, 28, [near, near[:3] + 1]),
        ("one_map", ["2"], 2, 2, 28, [near, near[:3] + 1]),
    ):
        pooler = MultiScaleRoIAlign(names, size, ratio, canonical_scale=scale)
        out = pooler(features, boxes, images)
        scalars = {"featmap_names": names, "output_size": pooler.output_size, "sampling_ratio": ratio}
        scalars |= {"canonical_scale": scale, "canonical_level": 4, "image_sizes": images, "scales": pooler.scales}
        inputs = {f"features.{k}": v for k, v in features.items()} | {f"boxes.{i}": b for i, b in enumerate(boxes)}
        put(f"multiscale_roi_align/{name}", scalars, output=out, **inputs)

    rows = [(fh, fw, h, w) for fh, fw in ((48, 56), (40, 40), (16, 20), (1, 2), (3, 7)) for h, w in ((136, 200), (5, 224), (192, 224), (33, 33), (160, 128))]
    scales = [_infer_scale(torch.zeros(1, 1, fh, fw), (h, w)) for fh, fw, h, w in rows]
    put("infer_scale/table", feature_and_image=torch.tensor(rows), scales=torch.tensor(scales))


def resize():
    """Output sizes; int(side * scale) with the scale in f64 is checked against the transform itself."""
    settings = ((800, 1333), (240, 480), (128, 224), (320, 640), (600, 1000))
    shapes = [(1, 1), (427, 640), (375, 500), (480, 640), (640, 427), (500, 375), (333, 500), (1, 7), (13, 1), (7, 300)]
    shapes += [(30000, 10), (10, 30000), (3000, 4000), (1333, 800), (800, 1333), (799, 1334), (37, 37)]
    draws = rule("resize/sizes", (30, 2), 1, 1300).long().tolist()
    rows, empty = [], []
    for (h, w), (low, high) in itertools.product(shapes + [tuple(d) for d in draws], settings):
        scale = min(low / min(h, w), high / max(h, w))
        expected = (int(h * scale), int(w * scale))
        image = torch.zeros(1, 1, 1).expand(1, h, w)
        if 0 in expected:  # interpolate refuses; recorded apart
            empty.append((h, w, low, high))
            continue
        found = GeneralizedRCNNTransform(low, high, [0.0], [1.0]).resize(image)[0].shape[-2:]
        assert tuple(found) == expected, (h, w, low, high, found, expected)
        rows.append((h, w, low, high, *found))
    put("resize_size/table", sizes=torch.tensor(rows))
    put("resize_size/refused", sizes=torch.tensor(empty))
    for h, w, oh, ow in ((5, 7, 11, 13), (12, 15, 5, 6), (1, 1, 4, 4), (1, 7, 3, 20), (9, 9, 9, 9), (16, 16, 7, 23), (20, 24, 1, 1), (13, 17, 14, 16)):
        x = rule(f"resize/{h}x{w}", (3, h, w), 0, 1)
        out = GeneralizedRCNNTransform(1, 1, [0.0] * 3, [1.0] * 3, fixed_size=(ow, oh)).resize(x)[0]
        put(f"resize_bilinear/{h}x{w}_to_{oh}x{ow}", {"size": (oh, ow)}, input=x, output=out)
        if oh >= h and ow >= w:
            out = F.interpolate(x[None], size=(oh, ow), mode="nearest")[0]
            put(f"resize_nearest/{h}x{w}_to_{oh}x{ow}", {"size": (oh, ow)}, input=x, output=out)
    for low, high in ((8, 16), (24, 40)):
        x = rule("resize/scaled", (3, 11, 17), 0, 1)
        out = GeneralizedRCNNTransform(low, high, [0.0] * 3, [1.0] * 3).resize(x)[0]
        put(f"resize_bilinear/min{low}_max{high}", {"size": tuple(out.shape[-2:])}, input=x, output=out)


def main():
    torch.set_num_threads(2)
    FIXTURES.mkdir(exist_ok=True)
    for make in (boxes, nms, batched_nms, box_coder, anchors, roi_pooling, levels, resize):
        make()
    data = save(TENSORS)
    (FIXTURES / "ops.safetensors").write_bytes(data)
    lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(SCALARS.items()))
    (FIXTURES / "ops.json").write_text(f"{{\n{lines}\n}}\n")
    print(f"ops: {len(data)} bytes, {len(SCALARS)} cases, {len(TENSORS)} tensors")


if __name__ == "__main__":
    main()
