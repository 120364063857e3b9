"""The PyTorch side of the benches of single operations: each function is what a PyTorch user would call. t: inputs by name, o: options, dtype."""
import torch
import torch.nn.functional as F
from inputs import DTYPES, sampled, tensor
from protocol import Work, serve


def gate(t, o, dtype):
    p = F.softmax(t["logits"], -1)
    weights, choices = p.topk(o["topK"], -1)
    torch.bincount(choices.reshape(-1), minlength=p.shape[1])
    return weights / weights.sum(-1, keepdim=True), p.sum(0)


def dispatch_plan(t, o, dtype):
    flat = t["choices"].reshape(-1)
    order = torch.argsort(flat, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(order.numel())
    return order, F.pad(torch.bincount(flat, minlength=o["experts"]).cumsum(0), (1, 0)), place


def _attention(q, k, v, causal):
    """[tokens, heads, width] of one sequence, or [sequences, heads, keys, width]."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1])


def attention(t, o, dtype):
    q, k, v = (t[name].transpose(0, 1).unsqueeze(0) for name in "qkv")
    return (_attention(q, k, v, True).squeeze(0).transpose(0, 1),)


def attention_decode(t, o, dtype):
    sequences = t["q"].shape[0]
    k, v = (t[name].view(sequences, -1, *t[name].shape[2:]).transpose(1, 2) for name in "kv")
    return (_attention(t["q"].unsqueeze(2), k, v, False).squeeze(2),)


def rms_norm(t, o, dtype):
    return (F.rms_norm(t["x"], t["weight"].shape, t["weight"], o["epsilon"]),)


def layer_norm(t, o, dtype):
    return (F.layer_norm(t["x"], t["weight"].shape, t["weight"], t["bias"], o["epsilon"]),)


def softmax(t, o, dtype):
    return (F.softmax(t["x"], -1),)


def linear_cross_entropy(t, o, dtype):
    return (F.cross_entropy(F.linear(t["hidden"], t["weight"]).float(), t["targets"]),)


def add(t, o, dtype):
    return (t["x"] + t["y"],)


def multiply(t, o, dtype):
    return (t["x"] * t["y"],)


def silu(t, o, dtype):
    return (F.silu(t["x"]),)


def gelu(t, o, dtype):
    return (F.gelu(t["x"]),)


def cast(t, o, dtype):
    return (t["x"].to(DTYPES[o["to"]]),)


def embedding(t, o, dtype):
    return (F.embedding(t["ids"], t["weight"]),)


def sum(t, o, dtype):
    return (t["x"].sum(o["axis"]),)


def log_sum_exp(t, o, dtype):
    return (t["x"].logsumexp(-1),)


def argmax(t, o, dtype):
    return (t["x"].argmax(-1),)


def interpolate(t, o, dtype):
    return (F.interpolate(t["x"], size=o["size"], mode=o["mode"], **({} if o["mode"] == "area" else {"align_corners": False})),)


def unfold(t, o, dtype):
    return (F.unfold(t["x"], o["patch"], stride=o["patch"]).transpose(1, 2).flatten(0, 1).contiguous(),)


def rotary(t, o, dtype):
    cos, sin = t["cos"].to(t["x"].dtype).unsqueeze(1), t["sin"].to(t["x"].dtype).unsqueeze(1)
    a, b = t["x"].chunk(2, -1)
    return (torch.cat([a * cos - b * sin, b * cos + a * sin], -1),)


def transpose(t, o, dtype):
    return (t["x"].t().contiguous(),)


def cat(t, o, dtype):
    return (torch.cat([t["x"], t["y"]], 1),)


def gather_rows(t, o, dtype):
    return (t["x"].index_select(0, t["index"]),)


def normal(t, o, dtype):
    return (torch.randn(o["size"], dtype=dtype),)


def uniform(t, o, dtype):
    return (torch.rand(o["size"], dtype=dtype),)


def _adamw(t, o):
    parameters = [t[f"parameter{i}"].requires_grad_() for i in range(o["tensors"])]
    for i, p in enumerate(parameters):
        p.grad = t[f"gradient{i}"]
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1, fused=True).step


def make(request):
    options, train = request["options"], request["pass"] == "train"
    t = {name: tensor(spec, request["dtype"], train) for name, spec in request["inputs"].items()}
    if request["op"] == "adamw":
        return _adamw(t, options)
    op, dtype = globals()[request["op"]], DTYPES[request["dtype"]]
    leaves = {name: x for name, x in t.items() if x.requires_grad}
    start = None

    def call():
        nonlocal start
        with torch.set_grad_enabled(train):
            out = op(t, options, dtype)
        if train:
            if start is None and out[0].dim() > 0:
                name = {torch.float32: "f32", torch.bfloat16: "bf16"}[out[0].dtype]
                start = tensor({"shape": list(out[0].shape), "seed": request["startSeed"]}, name)
            out[0].backward(start)
        return out

    def run():
        call()
        for leaf in leaves.values():
            leaf.grad = None

    def results():
        found = {f"output {i}": sampled(x) for i, x in enumerate(call())}
        for name, leaf in leaves.items():
            found["d " + name] = sampled(leaf.grad)
            leaf.grad = None
        return found

    return Work(run, results if request["comparable"] else None)


serve(make)
