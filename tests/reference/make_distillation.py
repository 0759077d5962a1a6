"""Prints the losses of distillation for small inputs, with the norms of their gradients.

The values stand in the tests of `crates/rcnn-train/src/distillation.rs`, whose inputs follow the same rule:
`sin(frequency * i + phase)` in f32. PKD is written as Cao et al. 2022 (https://arxiv.org/abs/2207.02039) define it:
each channel normalised over batch and locations, then half the mean squared error.
"""

import torch
import torch.nn.functional as F


def wave(shape, frequency, phase):
    count = torch.Size(shape).numel()
    i = torch.arange(count, dtype=torch.float64)
    return torch.sin(frequency * i + phase).float().double().reshape(shape)


def normalised(maps):
    rows = maps.transpose(0, 1).flatten(1)
    return (rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True) + 1e-6)


def report(name, student, loss_of):
    student.requires_grad_()
    loss = loss_of(student)
    loss.backward()
    print(f"const {name}: [f64; 2] = [{loss.item():.9f}, {student.grad.norm().item():.9f}];")


def main():
    teacher = wave((2, 3, 4, 5), 1.3, 0.5) * 3 + 1
    report("PKD", wave((2, 3, 4, 5), 0.7, 0.0), lambda s: F.mse_loss(normalised(s), normalised(teacher)) / 2)

    probability = torch.sigmoid(wave((24,), 0.4, 1.0) * 4)
    entropy = F.binary_cross_entropy(probability, probability)
    report(
        "OBJECTNESS",
        wave((24,), 0.9, 0.1),
        lambda s: F.binary_cross_entropy_with_logits(3 * s, probability) - entropy,
    )

    teacher = torch.log_softmax(wave((6, 4), 0.6, 0.3) * 2, 1)
    report(
        "CLASSES",
        wave((6, 4), 1.1, 0.2),
        lambda s: F.kl_div(torch.log_softmax(3 * s, 1), teacher, reduction="batchmean", log_target=True),
    )


if __name__ == "__main__":
    main()
