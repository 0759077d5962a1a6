"""Weights and images from a written rule, so that no reference data has to be downloaded.

The rule, which the Rust tests repeat bit for bit:

* ``h`` is the 64-bit FNV-1a hash of a UTF-8 key.
* Element ``i`` (row-major) has ``z = h + (i + 1) * 0x9E3779B97F4A7C15 (mod 2^64)``, finished as
  in splitmix64: ``z ^= z >> 30; z *= 0xBF58476D1CE4E5B9; z ^= z >> 27; z *= 0x94D049BB133111EB;
  z ^= z >> 31``.
* ``u = (z >> 40) / 2^24`` lies in [0, 1) and ``s = 2 u - 1`` in [-1, 1); both are exact in f32.
* A tensor's key is its name in torchvision's ``state_dict`` and its value is ``base + scale * s``
  in f32, a multiplication then an addition, each rounded:

  ================================  ======  =====================================
  name and shape                    base    scale
  ================================  ======  =====================================
  ``*running_var``                  1       0.5
  ``*running_mean``                 0       0.1
  ``*num_batches_tracked``          (left at 0)
  one-dimensional ``*.weight``      0.6     0.12
  one-dimensional ``*.bias``        0       0.05
  2-D and 4-D ``*.weight``          0       f32(sqrt(6 / product(shape[1:])))
  ================================  ======  =====================================

* The base of ``backbone.*.bias``, but for the pyramid's, is the case's ``body_bias`` if it has one, and that of
  one-dimensional ``*.weight`` its ``norm_weight``.
* ``scale`` is then multiplied by the tensor's gain, a power of two (1 unless the case lists one).
* Image ``name``: channel ``c`` of pixel ``(y, x)`` is ``(3 * coarse + fine) // 4``, where
  ``coarse`` is ``z >> 56`` of key ``name/coarse`` at ``i = ((y // 8) * 4096 + x // 8) * 3 + c``
  and ``fine`` is ``z >> 56`` of key ``name/fine`` at ``i = (y * 4096 + x) * 3 + c``.
  The tensor is RGB, ``[3, H, W]``, ``pixel / 255`` in f32.
"""

import math

import numpy as np

MASK = (1 << 64) - 1


def fnv1a(key):
    h = 0xCBF29CE484222325
    for byte in key.encode("utf-8"):
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def splitmix(key, index):
    """``z`` of the rule for an array of element indices."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(key)) + (index.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def signed(key, shape):
    """``s`` of the rule, in [-1, 1), as a float32 array."""
    out = np.empty(math.prod(shape), np.float32)
    for start in range(0, out.size, 1 << 20):
        part = out[start : start + (1 << 20)]
        z = splitmix(key, np.arange(start, start + part.size, dtype=np.uint64))
        part[:] = (z >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    return out.reshape(shape)


def base_and_scale(key, shape):
    if key.endswith("running_var"):
        return 1.0, 0.5
    if key.endswith("running_mean"):
        return 0.0, 0.1
    if len(shape) == 1 and key.endswith(".weight"):
        return 0.6, 0.12
    if len(shape) == 1 and key.endswith(".bias"):
        return 0.0, 0.05
    if len(shape) in (2, 4) and key.endswith(".weight"):
        return 0.0, math.sqrt(6 / math.prod(shape[1:]))
    raise ValueError(f"the rule does not cover {key} {list(shape)}")


def values(key, shape, gain=1.0, body_bias=0.0, norm_weight=0.6):
    base, scale = base_and_scale(key, shape)
    if len(shape) == 1 and key.endswith(".weight"):
        base = norm_weight
    if key.startswith("backbone.") and not key.startswith("backbone.fpn.") and key.endswith(".bias"):
        base = body_bias
    return np.float32(base) + np.float32(scale) * np.float32(gain) * signed(key, shape)


def weight(key, shape, gain=1.0, body_bias=0.0):
    import torch

    return torch.from_numpy(values(key, shape, gain, body_bias))


def fill(model, gains=None, body_bias=0.0):
    """Gives every parameter and buffer of ``model`` its value from the rule."""
    gains = dict(gains or {})
    state = model.state_dict()
    for key in state:
        if not key.endswith("num_batches_tracked"):
            state[key] = weight(key, tuple(state[key].shape), gains.pop(key, 1.0), body_bias)
    assert not gains, f"gains for unknown tensors: {list(gains)}"
    model.load_state_dict(state)
    return model


def image_u8(name, height, width):
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    coarse = splitmix(f"{name}/coarse", ((y // 8) * 4096 + x // 8) * 3 + c) >> np.uint64(56)
    fine = splitmix(f"{name}/fine", (y * 4096 + x) * 3 + c) >> np.uint64(56)
    return ((coarse * np.uint64(3) + fine) // np.uint64(4)).astype(np.uint8)


def image(name, height, width):
    import torch

    pixels = image_u8(name, height, width).astype(np.float32) / np.float32(255)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


if __name__ == "__main__":
    # Values that pin an implementation of the rule.
    print("fnv1a:", hex(fnv1a("rpn.head.cls_logits.weight")))
    print("signed:", signed("rpn.head.cls_logits.weight", (4,)).tolist())
    print("weight:", weight("rpn.head.cls_logits.weight", (3, 256, 1, 1)).flatten()[:4].tolist())
    print("norm:", weight("backbone.body.bn1.weight", (64,))[:4].tolist())
    print("image:", image_u8("picture", 9, 9)[8, 8].tolist())
