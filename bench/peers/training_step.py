"""One training step of a language model in PyTorch: the model, the losses and the optimizer that bench/training.bench.ts has, parameter for parameter.
f32, or bf16 parameters with f32 masters that AdamW updates, as ours. On a GPU the experts are PyTorch's grouped product; the mode `compiled` sends
every block and the loss through torch.compile."""
import math

import torch
import torch.nn.functional as F
from inputs import DTYPES, sampled, tensor
from protocol import ON_GPU, Work, args, serve

product = getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)


def activated(h, expert):
    act = {"relu": F.relu, "silu": F.silu}[expert["activation"]]
    if not expert["gated"]:
        return act(h)
    gate, up = h.chunk(2, -1)
    return act(gate) * up


def experts(x, p, moe, sequences):
    """Softmax top-k with renormalised weights, rows sorted by expert; the balance loss as a mean over sequences."""
    count, k = moe["experts"], moe["topK"]
    scores = F.softmax(F.linear(x.float(), p["moe.router.weight"].float()), -1)
    weights, chosen = scores.topk(k, -1)
    weights = weights / weights.sum(-1, keepdim=True)
    order = torch.argsort(chosen.reshape(-1), stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(order.numel(), device=x.device)
    rows = x.index_select(0, order // k)
    up, down = p["moe.experts.up"], p["moe.experts.down"]
    shares = F.one_hot(chosen, count).view(sequences, -1, count).sum(1, dtype=torch.float32)
    if ON_GPU:
        ends = shares.sum(0).cumsum(0).to(torch.int32)
        h = activated(product(rows, up.transpose(1, 2), offs=ends), moe["expert"])
        y = product(h, down.transpose(1, 2), offs=ends)
    else:
        pieces = rows.split(shares.sum(0).long().tolist())
        y = torch.cat([F.linear(activated(F.linear(r, a), moe["expert"]), b) for r, a, b in zip(pieces, up.unbind(0), down.unbind(0))])
    y = y.index_select(0, place).view(x.shape[0], k, -1)
    out = (y * weights.to(y.dtype).unsqueeze(-1)).sum(1)
    mean = scores.view(sequences, -1, count).mean(1)
    per_sequence = x.shape[0] * k // sequences
    return out, count * (shares.detach() / per_sequence * mean).sum(-1).mean()


def rotate(x, cos, sin):
    """The first channels of each head, in halves."""
    turned, rest = x[..., :2 * cos.shape[-1]], x[..., 2 * cos.shape[-1]:]
    a, b = turned.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


def norm(x, p, name, c):
    weight = p[name + ".weight"]
    if c["norm"] == "layernorm":
        return F.layer_norm(x, weight.shape, weight, p[name + ".bias"], c["eps"])
    return F.rms_norm(x, weight.shape, weight, c["eps"])


def block(x, cos, sin, p, c):
    b, t, d = x.shape
    h, g, size = c["heads"], c["keyValueHeads"], c["headDim"]
    y = norm(x, p, "attentionNorm", c)
    q, k, v = (F.linear(y, p[f"attention.{n}.weight"]).view(b, t, -1, size).transpose(1, 2) for n in ("query", "key", "value"))
    a = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True, enable_gqa=h != g)
    x = x + F.linear(a.transpose(1, 2).reshape(b, t, h * size), p["attention.output.weight"])
    y = norm(x, p, "feedForwardNorm", c)
    if "moe.router.weight" not in p:
        ff = F.linear(activated(F.linear(y, p["feedForward.up"]), c["feedForward"]), p["feedForward.down"])
        return x + ff, x.new_zeros((), dtype=torch.float32)
    out, balance = experts(y.reshape(b * t, d), p, c["moe"], b)
    return x + out.view(b, t, d), balance


def head(x, weight, bias, targets):
    logits = F.linear(x, weight, bias).float()
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def make(r):
    c, dtype = r["config"], DTYPES[r["dtype"]]
    low = dtype != torch.float32
    values = {s["name"]: torch.ones(s["shape"], dtype=dtype) if s.get("ones") else tensor(s, r["dtype"]).to(dtype) for s in r["parameters"]}
    for v in values.values():
        v.requires_grad_(True)
    blocks = [{n.split(".", 2)[2]: v for n, v in values.items() if n.startswith(f"blocks.{i}.")} for i in range(c["layers"])]
    b, t = r["batchSequences"], r["sequenceLength"]
    i = torch.arange(b * t + 1)
    ids = (i * 7919 + (i * i) % 1009) % c["vocabularySize"]
    ids, targets = ids[:-1].view(b, t), ids[1:].view(b, t)
    dims = c["rotary"]["dims"]
    angle = torch.arange(t)[:, None] * c["rotary"]["base"] ** (-torch.arange(0, dims, 2) / dims)[None]
    cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)
    run_block, run_head = block, head
    if args.mode == "compiled":
        torch._dynamo.reset()
        run_block, run_head = torch.compile(block, dynamic=False), torch.compile(head, dynamic=False)

    def forward():
        x, balance = F.embedding(ids, values["embedding.weight"]), 0.0
        for p in blocks:
            x, one = run_block(x, cos, sin, p, c)
            balance = balance + one
        x = norm(x, values, "finalNorm", c)
        loss = run_head(x, values.get("output.weight", values["embedding.weight"]), values.get("output.bias"), targets)
        return loss + c["moe"]["router"]["balanceCoefficient"] * balance if "moe" in c else loss

    leaves = list(values.values())
    masters = [v.detach().float().requires_grad_(True) for v in leaves] if low else leaves
    optimizer = torch.optim.AdamW(masters, lr=r["learningRate"], weight_decay=r["weightDecay"], fused=True)

    def backward():
        for v in leaves:
            v.grad = None
        loss = forward()
        loss.backward()
        return loss

    def step():
        loss = backward()
        if low:
            for m in masters:
                m.grad = torch.empty_like(m) if m.grad is None else m.grad
            torch._foreach_copy_([m.grad for m in masters], [v.grad for v in leaves])
        torch.nn.utils.clip_grad_norm_(masters, r["clipNorm"], foreach=True)
        optimizer.step()
        if low:
            with torch.no_grad():
                torch._foreach_copy_(leaves, masters)
        return loss.item()

    def results():
        loss = backward()
        found = {"loss": [loss.item()], "gradient norm": [math.sqrt(sum(v.grad.double().square().sum().item() for v in leaves))]}
        if not low:
            found.update({"d " + name: sampled(v.grad) for name, v in values.items()})
        return found

    return Work(step, results, args.mode)


serve(make)
