"""Golden values for test/ops/attention.test.ts: PyTorch's scaled_dot_product_attention in f64 with grouped key heads, a causal mask and a
sliding window. Run: python test/golden/attention/make.py"""
import json
import pathlib

import torch

torch.manual_seed(7)
torch.set_num_threads(1)
cases = []
for tokens, query_heads, heads, width, value_width, causal, window in [
    (9, 4, 2, 8, 8, True, 0),
    (13, 6, 2, 10, 6, True, 5),
    (7, 2, 2, 8, 8, False, 0),
]:
    q = torch.randn(tokens, query_heads, width, dtype=torch.float64)
    k = torch.randn(tokens, heads, width, dtype=torch.float64)
    v = torch.randn(tokens, heads, value_width, dtype=torch.float64)
    g = torch.randn(tokens, query_heads, value_width, dtype=torch.float64)
    for t in (q, k, v):
        t.mul_(1024).round_().div_(1024).requires_grad_()
    g.mul_(1024).round_().div_(1024)
    i = torch.arange(tokens)
    mask = torch.ones(tokens, tokens, dtype=torch.bool)
    if causal:
        mask &= i[None, :] <= i[:, None]
    if window:
        mask &= i[None, :] > i[:, None] - window
    out = torch.nn.functional.scaled_dot_product_attention(
        q.transpose(0, 1)[None], k.transpose(0, 1)[None], v.transpose(0, 1)[None], attn_mask=mask, enable_gqa=True
    )[0].transpose(0, 1)
    out.backward(g)
    flat = lambda t: [float(f"{x:.15g}") for x in t.detach().flatten().tolist()]
    cases.append(
        {
            "tokens": tokens, "queryHeads": query_heads, "heads": heads, "width": width, "valueWidth": value_width,
            "causal": causal, "window": window,
            "q": flat(q), "k": flat(k), "v": flat(v), "gradient": flat(g),
            "out": flat(out), "dq": flat(q.grad), "dk": flat(k.grad), "dv": flat(v.grad),
        }
    )
path = pathlib.Path(__file__).with_name("sdpa.json")
path.write_text(json.dumps({"torch": torch.__version__, "cases": cases}))
print(path, path.stat().st_size)
