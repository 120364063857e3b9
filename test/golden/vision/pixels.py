"""What make.py, load.py and the tests have in common."""
import torch

STEP = 17


def pixels(images, side):
    i = torch.arange(images * 3 * side * side, dtype=torch.int64)
    return (((i * 7919 + i // 97 * 31) % 1009).double() / 504.0 - 1).float().reshape(images, 3, side, side)
