"""The PyTorch side of gemm.bench.ts: torch.mm into an output that is there already."""
import torch
from inputs import sampled, tensor
from protocol import Work, serve


def make(case):
    left, right = tensor(case["left"], case["dtype"]), tensor(case["right"], case["dtype"])
    a = left.t() if case["form"] == "tn" else left
    b = right.t() if case["form"] == "nt" else right
    out = torch.empty(a.shape[0], b.shape[1], dtype=a.dtype)
    return Work(lambda: torch.mm(a, b, out=out), lambda: {"out": sampled(torch.mm(a, b))})


serve(make)
