"""Inputs that bench/inputs.ts makes bit for bit alike, and how results are thinned for the comparison."""
import math

import numpy as np
import torch

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
SAMPLES = 4096


# The largest prime below 2^22: numbers repeat after so many, so that the inputs of a large layer are made in a moment, and no two rows of a matrix are alike.
PERIOD = 4194301


def mixed(size, seed):
    """32 well-mixed bits for every index below size, at most one period."""
    h = np.arange(min(size, PERIOD), dtype=np.uint32)
    h += np.uint32(seed * 0x9E3779B9 & 0xFFFFFFFF)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, None)):
        h ^= h >> np.uint32(shift)
        if factor:
            h *= np.uint32(factor)
    return h


def repeated(one, size):
    """The values of a tensor over and over, `size` of them, on the default device."""
    one = on_device(one)
    if one.numel() == size:
        return one
    out = torch.empty(size, dtype=one.dtype)
    for at in range(0, size, one.numel()):
        piece = out[at:at + one.numel()]
        piece.copy_(one[:piece.numel()])
    return out


def on_device(x):
    """Where torch.set_default_device says that new tensors go."""
    return x.to(torch.get_default_device())


def tensor(spec, dtype, train=False):
    if "values" in spec:
        return torch.tensor(spec["values"]).view(spec["shape"])  # on the default device
    size = math.prod(spec["shape"])
    h = mixed(size, spec["seed"])
    if "below" in spec:
        return repeated(torch.from_numpy((h % np.uint32(spec["below"])).astype(np.int64)), size).view(spec["shape"])
    data = ((h / 2.0**32 * 2 - 1) * (1.7 * spec.get("scale", 1))).astype(np.float32)
    dtype = DTYPES[spec.get("dtype", dtype)]
    value = repeated(torch.from_numpy(data).to(dtype), size).view(spec["shape"])
    return value.requires_grad_(train and spec.get("grad", False))


def sampled(x):
    flat = x.detach().reshape(-1)
    size = flat.numel()
    if size > SAMPLES:
        flat = flat[on_device(torch.from_numpy(np.arange(SAMPLES, dtype=np.int64) * 1000003 % size))]
    return flat.double().tolist()
