"""The PyTorch side of grouped_ffn.bench.ts. Every formulation below is tried on the case at hand, the fastest one is timed: a fair opponent is the
best that PyTorch users can write, not the first. None has the quadratic cost in the number of experts that indexing one expert's weights out of the
stack has in backward: unbind's backward stacks the gradients once."""
import math

import torch
import torch.nn.functional as F
from inputs import DTYPES, mixed, on_device, repeated, sampled, tensor
from protocol import ON_GPU, Work, args, seconds as timed, serve

ACTIVATIONS = {"relu": F.relu, "silu": F.silu}


def counted(flat, experts):
    """How many slots each expert has; on a GPU without waiting for it, as bincount does."""
    if ON_GPU:
        return torch.histc(flat.float(), bins=experts, min=0, max=experts - 1).to(torch.int64)
    return torch.bincount(flat, minlength=experts)


def by_expert(choices, experts):
    """Slots sorted by expert, the place of every slot in that order, and how many each expert has."""
    flat = choices.reshape(-1)
    order = torch.argsort(flat, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(order.numel())
    return order, place, counted(flat, experts)


def activated(h, case):
    act = ACTIVATIONS[case["activation"]]
    if not case["gated"]:
        return act(h)
    gate, up = h.chunk(2, -1)
    return act(gate) * up


def combined(y, place, weights):
    tokens, k = weights.shape
    y = y.index_select(0, place).view(tokens, k, -1)
    return (y * weights.to(y.dtype).unsqueeze(-1)).sum(1)


def sort_loop(x, choices, weights, up, down, case):
    """Rows sorted by expert, one pair of products per expert, back into token order, weighted sum."""
    order, place, counts = by_expert(choices, case["experts"])
    pieces = x.index_select(0, order // case["topK"]).split(counts.tolist())
    out = [F.linear(activated(F.linear(piece, a), case), b) for piece, a, b in zip(pieces, up.unbind(0), down.unbind(0))]
    return combined(torch.cat(out), place, weights)


def index_add(x, choices, weights, up, down, case):
    """One expert after the other gathers its tokens and adds its weighted output to theirs."""
    order, _, counts = by_expert(choices, case["experts"])
    factors = weights.reshape(-1).index_select(0, order).to(x.dtype).unsqueeze(-1)
    counts = counts.tolist()
    out = torch.zeros_like(x)
    parts = zip((order // case["topK"]).split(counts), factors.split(counts), up.unbind(0), down.unbind(0))
    for token, factor, a, b in parts:
        if token.numel():
            y = F.linear(activated(F.linear(x.index_select(0, token), a), case), b)
            out.index_add_(0, token, y * factor)
    return out


# Public since PyTorch 2.10 or so, before that under another name.
product = getattr(F, "grouped_mm", None) or torch._grouped_mm


def grouped_mm(x, choices, weights, up, down, case):
    """PyTorch's own grouped product, put together as transformers does in its grouped_mm experts."""
    order, place, counts = by_expert(choices, case["experts"])
    ends = counts.cumsum(0).to(torch.int32)
    rows = x.index_select(0, order // case["topK"])
    h = activated(product(rows, up.transpose(1, 2), offs=ends), case)
    return combined(product(h, down.transpose(1, 2), offs=ends), place, weights)


def padded(x, choices, weights, up, down, case):
    """Every expert gets as many rows as the busiest one: two batched products."""
    experts, k = case["experts"], case["topK"]
    order, place, counts = by_expert(choices, experts)
    room = int(counts.max())
    if experts * room > 4 * order.numel():
        raise ValueError("too much padding")
    flat = choices.reshape(-1)
    slot = flat * room + place - (counts.cumsum(0) - counts).index_select(0, flat)
    buffer = x.new_zeros(experts * room, x.shape[1]).index_copy(0, slot, x.repeat_interleave(k, 0))
    h = activated(torch.bmm(buffer.view(experts, room, -1), up.transpose(1, 2)), case)
    return combined(torch.bmm(h, down.transpose(1, 2)).flatten(0, 1), slot, weights)


class _ByHand(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, choices, weights, up, down, case):
        order, place, counts = by_expert(choices, case["experts"])
        counts = counts.tolist()
        token = order // case["topK"]
        rows = x.index_select(0, token)
        z = rows.new_empty(rows.shape[0], up.shape[1])
        for piece, into, a in zip(rows.split(counts), z.split(counts), up.unbind(0)):
            torch.mm(piece, a.t(), out=into)
        h = activated(z, case)
        y = rows.new_empty(rows.shape[0], down.shape[1])
        for piece, into, b in zip(h.split(counts), y.split(counts), down.unbind(0)):
            torch.mm(piece, b.t(), out=into)
        ctx.save_for_backward(rows, z, h, y, weights, up, down, order, place, token)
        ctx.counts, ctx.case = counts, case
        per_slot = y.index_select(0, place).view(*choices.shape, -1)
        return torch.bmm(weights.to(y.dtype).unsqueeze(1), per_slot).squeeze(1)

    @staticmethod
    def backward(ctx, gradient):
        rows, z, h, y, weights, up, down, order, place, token = ctx.saved_tensors
        counts, case = ctx.counts, ctx.case
        g = gradient.index_select(0, token)
        d_weights = (g * y).sum(-1).index_select(0, place).view_as(weights).to(weights.dtype)
        g = g * weights.reshape(-1).index_select(0, order).to(g.dtype).unsqueeze(-1)
        dh, d_down = torch.empty_like(h), torch.empty_like(down)
        for piece, inner, into, b, db in zip(g.split(counts), h.split(counts), dh.split(counts), down.unbind(0), d_down.unbind(0)):
            torch.mm(piece, b, out=into)
            torch.mm(piece.t(), inner, out=db)
        if case["gated"]:
            gate, linear = z.chunk(2, -1)
            dz = torch.cat([torch.ops.aten.silu_backward(dh * linear, gate), dh * F.silu(gate)], -1)
        else:
            dz = torch.ops.aten.threshold_backward(dh, h, 0)
        d_rows, d_up = torch.empty_like(rows), torch.empty_like(up)
        for piece, inner, into, a, da in zip(dz.split(counts), rows.split(counts), d_rows.split(counts), up.unbind(0), d_up.unbind(0)):
            torch.mm(piece, a, out=into)
            torch.mm(piece.t(), inner, out=da)
        dx = d_rows.index_select(0, place).view(weights.shape[0], weights.shape[1], -1).sum(1)
        return dx, None, d_weights, d_up, d_down, None


def by_hand(x, choices, weights, up, down, case):
    """sort_loop with its own backward, products written into buffers that are there."""
    return _ByHand.apply(x, choices, weights, up, down, case)


def triton(x, choices, weights, up, down, case):
    """A sorted grouped product in Triton, gather in the load: triton_grouped.py."""
    from triton_grouped import experts

    return experts(x, choices, weights, up, down, lambda h: activated(h, case), by_expert(choices, case["experts"]))


def grouped_mm_compiled(x, choices, weights, up, down, case):
    """grouped_mm, through torch.compile."""
    if "compiled" not in case:
        torch._dynamo.reset()
        case["compiled"] = torch.compile(lambda *t: grouped_mm(*t, {k: case[k] for k in ("experts", "topK", "gated", "activation")}), dynamic=False)
    return case["compiled"](x, choices, weights, up, down)


def dense(x, choices, weights, up, down, case):
    """Not a layer: the same operations on one expert's weights by cuBLAS, rows in place. The ceiling, not compared."""
    if "dense" not in case:  # one expert's weights, so that no gradient of the whole stack is filled
        case["dense"] = [w[0].detach().clone().requires_grad_(w.requires_grad) for w in (up, down)]
    a, b = case["dense"]
    rows = x.repeat_interleave(case["topK"], 0)
    return F.linear(activated(F.linear(rows, a), case), b).view(*choices.shape, -1).sum(1)


def products(case):
    """Not a layer: nothing but the products at equal operations, each one call of cuBLAS into memory that is there. The strict ceiling, not compared."""
    d, slots, f, train = case["d"], case["tokens"] * case["topK"], case["f"], case["pass"] == "train"
    hidden = 2 * f if case["gated"] else f
    shapes = {"x": [slots, d], "up": [hidden, d], "h": [slots, f], "down": [d, f], "dz": [slots, hidden], "dy": [slots, d]}
    t = {name: tensor({"shape": shape, "seed": 10 + i}, case["dtype"]) for i, (name, shape) in enumerate(shapes.items())}
    pairs = [(t["x"], t["up"].t()), (t["h"], t["down"].t())]
    if train:
        pairs += [(t["dz"], t["up"]), (t["dz"].t(), t["x"]), (t["dy"], t["down"]), (t["dy"].t(), t["h"])]
    outputs = [a.new_empty(a.shape[0], b.shape[1]) for a, b in pairs]

    def run():
        for (a, b), out in zip(pairs, outputs):
            torch.mm(a, b, out=out)

    return Work(run, None, "products")


SETTINGS = ("default", "medium", "tuned")
GPU_METHODS = {"sort_loop": sort_loop, "grouped_mm": grouped_mm, "grouped_mm_compiled": grouped_mm_compiled, "triton": triton, "by_hand": by_hand, "dense": dense}
METHODS = (sort_loop, index_add, grouped_mm, padded, by_hand)


def tokens_and_router(case, train):
    """See bench/grouped_ffn.bench.ts: exact logits, so that both sides choose alike."""
    tokens, d, experts, dtype = case["tokens"], case["d"], case["experts"], DTYPES[case["dtype"]]
    x = repeated(torch.from_numpy((mixed(tokens * d, 1) % 219).astype("float32")), tokens * d).view(tokens, d).sub_(109).div_(64)
    x[:, :2] = 1
    router = repeated(torch.from_numpy((mixed(experts * d, 2) % 7).astype("float32")), experts * d).view(experts, d).sub_(3).div_(64)
    for e in range(experts):
        router[e, 0] = math.floor(-math.log(e + 1) * 32 + 0.5) / 32 if case["routing"] == "zipf" else 0
        router[e, 1] = e * 2.0**-20
    return on_device(x).to(dtype).requires_grad_(train), on_device(router).to(dtype).requires_grad_(train)


def make(case):
    if args.mode == "products":
        return products(case)
    # "saved": the forward pass of training, for what it keeps.
    train, experts, k = case["pass"] != "forward", case["experts"], case["topK"]
    whole = case["pass"] == "train"
    x, router = tokens_and_router(case, train)
    up, down = (tensor({**case[name], "grad": True}, case["dtype"], train) for name in ("up", "down"))
    start = tensor({"shape": list(x.shape), "seed": 5}, case["dtype"]) if train else None

    def route():
        p = F.softmax(F.linear(x.float(), router.float()), -1)
        weights, choices = p.topk(k, -1)
        share = counted(choices.reshape(-1), experts) / choices.numel()
        return choices, weights / weights.sum(-1, keepdim=True), experts * (share * p.mean(0)).sum()

    with torch.no_grad():
        given = route()
    given[1].requires_grad_(train)

    def call(method, backward=whole):
        choices, weights, balance = route() if case["part"] == "layer" else given
        out = method(x, choices, weights, up, down, case)
        if backward:
            torch.autograd.backward([out, case["balanceCoefficient"] * balance], [start, None])
        return out

    leaves = {"x": x, "router": router, "up": up, "down": down}

    def run(method):
        if not train:
            with torch.no_grad():
                call(method)
            return
        with torch.no_grad():
            for weight in (up, down, router):
                weight.view(-1)[:1].mul_(1)
        out = call(method)
        del out
        for leaf in leaves.values():
            leaf.grad = None

    def seconds(method):
        return timed(lambda: run(method), 1)

    def results():
        with torch.set_grad_enabled(train):
            found = {"out": sampled(call(best))}
        for name, leaf in leaves.items():
            if train:
                found["d " + name] = sampled(leaf.grad)
                leaf.grad = None
        return found

    def work():
        forward = None if whole or not train else lambda: call(best)
        compared = best is not dense and forward is None
        return Work(lambda: run(best), results if compared else None, best.__name__, forward, (up, down, router))

    if ON_GPU or args.mode not in SETTINGS:  # every way is a peer of its own
        if args.mode not in GPU_METHODS:
            raise ValueError(f"the ways are {', '.join([*GPU_METHODS, 'products'])}, got {args.mode}")
        best = GPU_METHODS[args.mode]
        for _ in range(3):
            run(best)
        return work()
    if "method" in case:  # the case is about one way
        best = GPU_METHODS[case["method"]]
        return work()

    taken = {}
    for method in METHODS:
        try:
            taken[method] = seconds(method)
        except Exception:  # a way that this PyTorch or this shape does not allow
            continue
    limit = 1.5 * min(taken.values())
    taken = {m: min(first, seconds(m)) for m, first in taken.items() if first <= limit}
    best = min(taken, key=taken.get)

    return work()


serve(make)
