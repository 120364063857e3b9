"""Golden values for test/ops/image.test.ts: torch.nn.functional.interpolate (align_corners False, no antialias) forward and gradient.
Inputs are the numbers of test/ops/values.ts. Run: python3 test/golden/image/make_interpolate.py (needs torch)"""
import json
import pathlib

import torch
import torch.nn.functional as F

torch.set_num_threads(1)


def values(n, seed):
    state = (seed * 2654435761 + 12345) & 0xFFFFFFFF
    out = []
    for _ in range(n):
        total = 0.0
        for _ in range(6):
            state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
            total += state / 2**32
        out.append(total - 3)
    return out


sizes = [
    # [n, c, h, w], [height, width]
    ([1, 2, 5, 7], [11, 9]),
    ([2, 1, 7, 6], [3, 4]),
    ([1, 1, 1, 1], [3, 2]),
    ([1, 1, 4, 5], [1, 1]),
    ([1, 2, 6, 6], [2, 2]),
    ([1, 1, 4, 4], [12, 12]),
    ([1, 1, 3, 8], [3, 8]),
    ([1, 1, 9, 2], [4, 13]),
]
cases = []
for shape, size in sizes:
    for mode in ("bilinear", "bicubic", "area"):
        n = shape[0] * shape[1] * shape[2] * shape[3]
        case = {"shape": shape, "size": size, "mode": mode}
        x = torch.tensor(values(n, 1), dtype=torch.float64).reshape(shape).requires_grad_()
        y = F.interpolate(x, size=size, mode=mode, **({} if mode == "area" else {"align_corners": False}))
        y.backward(torch.tensor(values(y.numel(), 2), dtype=torch.float64).reshape(y.shape))
        case["y"] = [float(f"{v:.14g}") for v in y.flatten().tolist()]
        case["dx"] = [float(f"{v:.14g}") for v in x.grad.flatten().tolist()]
        cases.append(case)
path = pathlib.Path(__file__).with_name("interpolate.json")
path.write_text(json.dumps(cases, separators=(",", ":")))
print(path, path.stat().st_size)

# Large sizes (a tower's own): a few thousand of the outputs, where f32 positions have lost digits.
large = []
for shape, size, mode in (([1, 1, 224, 224], [672, 672], "bicubic"), ([1, 1, 48, 48], [16, 16], "area"), ([1, 1, 24, 24], [27, 27], "bicubic"), ([1, 1, 333, 500], [224, 336], "bilinear")):
    n = shape[2] * shape[3]
    x = torch.tensor(values(n, 3), dtype=torch.float32).reshape(shape)
    y = F.interpolate(x, size=size, mode=mode, **({} if mode == "area" else {"align_corners": False})).flatten()
    at = [(j * 1000003) % y.numel() for j in range(min(100, y.numel()))]
    large.append({"shape": shape, "size": size, "mode": mode, "at": at, "y": [float(f"{y[i].item():.9g}") for i in at]})
path = pathlib.Path(__file__).with_name("interpolate-large.json")
path.write_text(json.dumps(large, separators=(",", ":")))
print(path, path.stat().st_size)
