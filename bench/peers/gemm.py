"""The PyTorch side of gemm.bench.ts: torch.mm into an output that is there already."""
import torch

from protocol import serve


def make(case):
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[case["dtype"]]
    m, n, k, form = case["m"], case["n"], case["k"], case["form"]
    a = torch.randn((k, m) if form == "tn" else (m, k)).to(dtype)
    b = torch.randn((n, k) if form == "nt" else (k, n)).to(dtype)
    left, right = (a.t() if form == "tn" else a), (b.t() if form == "nt" else b)
    out = torch.empty(m, n, dtype=dtype)
    return lambda: torch.mm(left, right, out=out)


serve(make)
