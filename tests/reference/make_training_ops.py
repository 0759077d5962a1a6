"""Writes fixtures/train_ops.safetensors and .json, torchvision's operations of training on small
inputs, and fixtures/frozen_names.json, the parameters that ``trainable_layers`` freezes.

Tensors are named ``<op>/<case>/<input or output>`` and keep their shapes; train_ops.json lists every
``<op>/<case>`` with its scalars. Losses of no elements are NaN in torchvision, null in the JSON.
"""

import json
import math

import torch
from safetensors.torch import save
from torch.nn import functional as F
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.models.detection.backbone_utils import mobilenet_backbone, resnet_fpn_backbone
from torchvision import models
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.ssd import _vgg_extractor
from torchvision.ops import box_iou

from make_models import FIXTURES, NORMS
from make_ops import SCALARS, TENSORS, put, random_boxes, rule
from training_step import FirstSampler

BETA = 1 / 9


def put_loss(case, scalars, inputs, losses):
    """Stores inputs, losses and the gradient of the losses' sum by each input that has one."""
    sum(losses.values()).backward()
    found = {n: None if math.isnan(v.item()) else v.item() for n, v in losses.items()}
    gradients = {f"{n}_grad": v.grad for n, v in inputs.items() if v.requires_grad}
    put(case, {**scalars, **found}, **inputs, **gradients)


def matcher():
    quality = rule("matcher/quality", (4, 30), 0, 1) ** 2
    tied = (rule("matcher/tied", (4, 30), 0, 1) * 5).floor() / 5  # rows and columns with equal bests
    flat = torch.zeros(2, 6)  # a best of 0 makes every column a low-quality match
    flat[0, 2] = 0.25
    # Thresholds as f32 values: one is at the threshold, its neighbours are just below and above.
    below, above = (torch.nextafter(torch.tensor(0.7), torch.tensor(end)) for end in (0.0, 1.0))
    edge = torch.tensor([[0.3, 0.5, 0.7, below, above, 0.29999998, 0.30000004, 0.49999997, 0.9]])
    truth, anchors = random_boxes("matcher/truth", 5), random_boxes("matcher/anchors", 60)
    boxes = box_iou(truth, torch.cat([anchors, truth[:2]]))
    for name, matrix in (("random", quality), ("ties", tied), ("zero", flat), ("edge", edge), ("boxes", boxes), ("single", quality[:1, :1])):
        for high, low in ((0.7, 0.3), (0.5, 0.5), (0.6, 0.0), (0.4, 0.2)):
            for low_quality in (False, True):
                scalars = {"high": high, "low": low, "low_quality": low_quality}
                matches = Matcher(high, low, low_quality)(matrix)
                put(f"matcher/{name}_{high}_{low}{'_low_quality' if low_quality else ''}", scalars, quality=matrix, matches=matches)


def assign():
    """Anchors and proposals to ground truth: labels -1 are ignored; no ground truth makes all 0."""
    rpn = RegionProposalNetwork(None, None, 0.7, 0.3, 256, 0.5, {}, {}, 0.7)
    heads = RoIHeads(None, None, None, 0.5, 0.5, 512, 0.25, None, 0.05, 0.5, 100)
    truth = random_boxes("assign/truth", 5)
    moved = truth.repeat_interleave(6, 0) + rule("assign/moved", (30, 4), -4, 4)
    boxes = torch.cat([random_boxes("assign/boxes", 20), moved, truth[1:3]])
    classes = torch.tensor([3, 1, 2, 3, 1])
    for name, count in (("several", 5), ("one", 1), ("none", 0)):
        gt = truth[:count]
        labels, matched = rpn.assign_targets_to_anchors([boxes], [{"boxes": gt}])
        put(f"assign_anchors/{name}", truth=gt, anchors=boxes, labels=labels[0], matched_boxes=matched[0])
        indices, labels = heads.assign_targets_to_proposals([boxes], [gt], [classes[:count]])
        put(f"assign_proposals/{name}", truth=gt, truth_labels=classes[:count], proposals=boxes, labels=labels[0], matched_idxs=indices[0])


def encode():
    """Regression targets; make_ops.py has more."""
    truth, boxes = random_boxes("encode/truth", 9), random_boxes("encode/boxes", 9)
    for name, weights in (("rpn", (1.0, 1.0, 1.0, 1.0)), ("roi", (10.0, 10.0, 5.0, 5.0))):
        found = BoxCoder(weights).encode([truth[:4], truth[4:]], [boxes[:4], boxes[4:]])
        put(f"regression_targets/{name}", {"weights": weights}, truth=truth, boxes=boxes, targets=torch.cat(found))


def elementwise():
    found, wanted = rule("smooth_l1/input", (6, 4), -0.5, 0.5), rule("smooth_l1/target", (6, 4), -0.2, 0.2)
    found[0], found[1, 0], found[1, 1] = wanted[0], wanted[1, 0] + BETA, wanted[1, 1] - 1.0
    for beta, reduction, rows in ((BETA, "sum", 6), (1.0, "mean", 6), (0.0, "sum", 6), (BETA, "sum", 0)):
        inputs = {"input": found[:rows].clone().requires_grad_(), "target": wanted[:rows]}
        loss = F.smooth_l1_loss(*inputs.values(), beta=beta, reduction=reduction)
        put_loss(f"smooth_l1/beta{beta:.3g}_{reduction}_{rows}", {"beta": beta, "reduction": reduction}, inputs, {"loss": loss})
    logits = torch.cat([rule("bce/logits", (20,), -6, 6), torch.tensor([0.0, 0.0, 40.0, 40.0, -40.0, -40.0, 200.0, -200.0])])
    labels = torch.cat([(rule("bce/labels", (20,)) > 0).float(), torch.tensor([0.0, 1.0] * 3 + [1.0, 0.0])])
    for rows in (28, 1, 0):
        inputs = {"logits": logits[:rows].clone().requires_grad_(), "labels": labels[:rows]}
        put_loss(f"binary_cross_entropy/{rows}", {}, inputs, {"loss": F.binary_cross_entropy_with_logits(*inputs.values())})


def rpn_loss():
    labels = torch.full((2, 40), -1.0)
    labels[:, 3:30] = 0
    labels[0, [5, 8, 13, 21, 22, 23, 24, 33]], labels[1, [0, 39]] = 1, 1
    none, ignored = labels.clamp(max=0), torch.full((2, 40), -1.0)
    for name, chosen, size in (("both", labels, 16), ("few", labels, 6), ("all", labels, 256), ("no_positive", none, 16),
                               ("no_negative", labels.where(labels == 1, -1.0), 16), ("all_ignored", ignored, 16)):
        rpn = RegionProposalNetwork(None, None, 0.7, 0.3, size, 0.5, {}, {}, 0.7)
        rpn.fg_bg_sampler = FirstSampler(size, 0.5)
        inputs = {
            "objectness": rule("rpn_loss/objectness", (80, 1), -3, 3).requires_grad_(),
            "deltas": rule("rpn_loss/deltas", (80, 4), -0.5, 0.5).requires_grad_(),
            "labels": chosen,
            "targets": rule("rpn_loss/targets", (2, 40, 4), -0.5, 0.5),
        }
        inputs["targets"].masked_fill_((chosen < 1)[..., None], -math.inf)  # as of a box without extent
        losses = rpn.compute_loss(inputs["objectness"], inputs["deltas"], list(chosen), list(inputs["targets"]))
        put_loss(f"rpn_loss/{name}", {"batch_size": size, "positive_fraction": 0.5}, inputs, dict(zip(("objectness_loss", "box_loss"), losses)))


def roi_loss():
    labels = torch.tensor([0, 1, 0, 2, 3, 0, 0, 3, 1, 0, 0, 0])
    for name, chosen in (("both", labels), ("no_positive", labels * 0), ("all_positive", labels + 1), ("one", labels[1:2])):
        classes, count = 5, len(chosen)
        inputs = {
            "class_logits": rule("roi_loss/logits", (count, classes), -4, 4).requires_grad_(),
            "box_regression": rule("roi_loss/regression", (count, 4 * classes), -1, 1).requires_grad_(),
            "labels": chosen,
            "targets": rule("roi_loss/targets", (count, 4)),
        }
        inputs["targets"].masked_fill_((chosen < 1)[:, None], -math.inf)
        losses = fastrcnn_loss(inputs["class_logits"], inputs["box_regression"], [chosen[:5], chosen[5:]],
                               [inputs["targets"][:5], inputs["targets"][5:]])
        put_loss(f"roi_loss/{name}", {}, inputs, dict(zip(("classification_loss", "box_loss"), losses)))


def focal_loss(logits, labels, weight, alpha, gamma):
    """Focal loss (Lin et al. 2017) of the softmax, which torch does not have: the mean, weighted by
    class as in torch's cross_entropy, of -alpha (1 - p)^gamma log p."""
    log_p = F.log_softmax(logits, 1).gather(1, labels[:, None])[:, 0]
    weight = (torch.ones(logits.shape[1]) if weight is None else weight)[labels]
    return (weight * -alpha * (1 - log_p.exp()) ** gamma * log_p).sum() / weight.sum()


def classifier_loss():
    """The classifier's loss with class weights, as focal loss, and both."""
    classes, labels = 5, torch.tensor([0, 1, 0, 2, 3, 0, 0, 3, 1, 0, 0, 4])
    logits = rule("classifier_loss/logits", (len(labels), classes), -4, 4)
    weights = torch.tensor([0.25, 1.0, 4.0, 0.0, 2.5])
    torch.testing.assert_close(focal_loss(logits, labels, weights, 1.0, 0.0), F.cross_entropy(logits, labels, weights))
    for name, weight in (("all_alike", None), ("weighted", weights)):
        for alpha, gamma in ((None, None), (1.0, 0.0), (0.25, 2.0), (1.0, 0.5), (1.5, 1.0)):
            inputs = {"class_logits": logits.clone().requires_grad_(), "labels": labels}
            if alpha is None:
                loss = F.cross_entropy(inputs["class_logits"], labels, weight)
            else:
                loss = focal_loss(inputs["class_logits"], labels, weight, alpha, gamma)
            kind = "cross_entropy" if alpha is None else f"focal_{alpha}_{gamma}"
            scalars = {
                "class_weights": None if weight is None else weight.tolist(),
                "focal_loss": None if alpha is None else {"alpha": alpha, "gamma": gamma},
            }
            put_loss(f"classifier_loss/{name}_{kind}", scalars, inputs, {"loss": loss})


def sampler():
    """How many are taken, which the random sampler and the one of the fixtures have in common."""
    rows = []
    for size, fraction in ((256, 0.5), (512, 0.25), (64, 0.5), (7, 0.5), (10, 0.33), (1, 0.5), (100, 0.29), (8, 1.0), (8, 0.0)):
        for positives, negatives in ((0, 0), (0, 300), (1, 300), (5, 2), (40, 600), (200, 600), (200, 10), (3, 0)):
            labels = torch.tensor([-1.0] * 3 + [1.0] * positives + [0.0] * negatives)
            masks = [kind(size, fraction) for kind in (FirstSampler, BalancedPositiveNegativeSampler)]
            taken = [tuple(int(m[0].sum()) for m in take([labels])) for take in masks]
            assert taken[0] == taken[1]
            rows.append([size, fraction, positives, negatives, *taken[0]])
    columns = ["batch_size", "positive_fraction", "positives", "negatives", "taken_positives", "taken_negatives"]
    put("sampler/counts", {"columns": columns, "rows": rows})
    labels = torch.tensor([0, 2, -1, 0, 1, 1, 0, 3, -1, 0, 0, 0])
    first = FirstSampler(6, 0.5)
    first([labels])
    put("sampler/first", {"batch_size": 6, "positive_fraction": 0.5}, labels=labels, positive=first.positive[0], negative=first.negative[0])


def frozen_names():
    """``frozen[n]`` of the first ``names``, in the order of ``named_parameters``, are frozen with n
    trainable layers."""
    found = {}
    resnets = [(arch, resnet_fpn_backbone, {}, 6) for arch in ("resnet18", "resnet50", "resnet101")]
    archs = ("mobilenet_v3_large", "mobilenet_v3_small", "mobilenet_v2")
    mobilenets = [(arch, mobilenet_backbone, {"fpn": True}, 7) for arch in archs]
    for arch, build, options, counts in resnets + mobilenets:
        for norm, layer in NORMS.items():
            for count in range(counts):
                with torch.device("meta"):
                    backbone = build(backbone_name=arch, weights=None, norm_layer=layer, trainable_layers=count, **options)
                names = [n for n, p in backbone.named_parameters() if not p.requires_grad]
                assert all(n.startswith("body.") for n in names)
                found[f"{arch if arch != 'mobilenet_v2' else 'mobilenet_v2_fpn'}/{norm}/{count}"] = names
    for arch, norm in (("vgg16", "none"), ("vgg19_bn", "batch")):
        for count in range(6):
            with torch.device("meta"):
                vgg = getattr(models, arch)(weights=None)
                _vgg_extractor(vgg, False, count)  # the rule of torchvision's SSD, the one that it has for a VGG
            names = [n for n, p in vgg.features.named_parameters() if not p.requires_grad]
            found[f"{arch}/{norm}/{count}"] = names
    compact = {}
    for key, names in found.items():
        arch, norm, count = key.split("/")
        longest = found[f"{arch}/{norm}/0"]
        assert names == longest[: len(names)]
        entry = compact.setdefault(f"{arch}/{norm}", {"names": [f"backbone.{n}" for n in longest], "frozen": []})
        entry["frozen"].append(len(names))
    lines = ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in compact.items())
    (FIXTURES / "frozen_names.json").write_text(f"{{\n{lines}\n}}\n")


def main():
    torch.set_num_threads(2)
    TENSORS.clear(), SCALARS.clear()
    for make in (matcher, assign, encode, elementwise, rpn_loss, roi_loss, classifier_loss, sampler):
        make()
    data = save(TENSORS)
    (FIXTURES / "train_ops.safetensors").write_bytes(data)
    lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(SCALARS.items()))
    (FIXTURES / "train_ops.json").write_text(f"{{\n{lines}\n}}\n")
    frozen_names()
    print(f"train_ops: {len(data)} bytes, {len(SCALARS)} cases, {len(TENSORS)} tensors")


if __name__ == "__main__":
    main()
