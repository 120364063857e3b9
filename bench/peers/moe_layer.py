"""The PyTorch side of grouped_ffn.bench.ts: an expert layer as PyTorch users write it when they want speed. Choices sorted by expert, one F.linear
per expert on contiguous rows, weighted sum in the order of the choices."""
import torch
import torch.nn.functional as F

from protocol import serve

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
ACTIVATIONS = {
    "identity": lambda x: x,
    "relu": F.relu,
    "silu": F.silu,
    "gelu_erf": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
}


def make(case):
    dtype, train = DTYPES[case["dtype"]], case["pass"] == "train"
    torch.manual_seed(0)
    tokens, d, f, experts, k, gated = (case[name] for name in ("tokens", "d", "f", "experts", "topK", "gated"))
    act = ACTIVATIONS[case["activation"]]
    rows = 2 * f if gated else f
    up = (torch.randn(experts, rows, d) / d**0.5).to(dtype).requires_grad_(train)
    down = (torch.randn(experts, d, f) / f**0.5).to(dtype).requires_grad_(train)
    x = torch.randn(tokens, d).to(dtype).requires_grad_(train)
    weights = torch.full((tokens, k), 1.0 / k, requires_grad=train)
    choices = torch.argsort(torch.rand(tokens, experts), dim=1)[:, :k].contiguous()
    start = torch.randn(tokens, d).to(dtype)

    def layer():
        order = torch.argsort(choices.view(-1), stable=True)
        counts = torch.bincount(choices.view(-1), minlength=experts).tolist()
        pieces = x.index_select(0, order // k).split(counts)
        outputs = []
        for e, piece in enumerate(pieces):
            if piece.shape[0] == 0:
                continue
            h = F.linear(piece, up[e])
            if gated:
                gate, value = h.chunk(2, -1)
                h = act(gate) * value
            else:
                h = act(h)
            outputs.append(F.linear(h, down[e]))
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(order.numel())
        y = torch.cat(outputs).index_select(0, inverse).view(tokens, k, d)
        return (y * weights.to(dtype).unsqueeze(-1)).sum(1)

    def step():
        if not train:
            with torch.no_grad():
                layer()
            return
        layer().backward(start)
        for leaf in (x, up, down, weights):
            leaf.grad = None

    return step


serve(make)
