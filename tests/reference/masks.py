"""Masks of made-up objects, and how they are stored."""

import torch


def ellipses(boxes, height, width):
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    centre, radius = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    inside = [((x - c[0]) / r[0]) ** 2 + ((y - c[1]) / r[1]) ** 2 <= 1 for c, r in zip(centre, radius)]
    return torch.stack(inside).to(torch.uint8) if inside else torch.zeros(0, height, width, dtype=torch.uint8)


def counts(mask):
    """COCO's run lengths of a mask: down the columns, beginning with the background."""
    runs, last = [0], 0
    for value in mask.T.flatten().int().tolist():
        if value != last:
            runs.append(0)
            last = value
        runs[-1] += 1
    return runs
