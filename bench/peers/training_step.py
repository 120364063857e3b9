"""One training step of the demo's language model in eager PyTorch: the model that bench/training.bench.ts makes, layer for layer."""
import torch
import torch.nn as nn
import torch.nn.functional as F
from protocol import serve


class Experts(nn.Module):
    """Softmax top-k with renormalised weights, a loop over experts, index_add: the usual eager formulation."""

    def __init__(self, d, hidden, experts, k):
        super().__init__()
        self.k, self.experts = k, experts
        self.router = nn.Linear(d, experts, bias=False)
        self.up = nn.Parameter(torch.randn(experts, 2 * hidden, d) * 0.02)
        self.down = nn.Parameter(torch.randn(experts, d, hidden) * 0.02)

    def forward(self, x):
        p = F.softmax(self.router(x).float(), -1)
        w, chosen = p.topk(self.k, -1)
        w = w / w.sum(-1, keepdim=True)
        out = torch.zeros_like(x)
        for e in range(self.experts):
            token, slot = torch.where(chosen == e)
            if token.numel():
                gate, up = F.linear(x[token], self.up[e]).chunk(2, -1)
                y = F.linear(F.silu(gate) * up, self.down[e])
                out = out.index_add(0, token, y * w[token, slot, None].to(y.dtype))
        share = F.one_hot(chosen, self.experts).float().sum(1).mean(0) / self.k
        return out, self.experts * (share * p.mean(0)).sum()


class Dense(nn.Module):
    def __init__(self, d, hidden):
        super().__init__()
        self.up, self.down = nn.Linear(d, 2 * hidden, bias=False), nn.Linear(hidden, d, bias=False)

    def forward(self, x):
        gate, up = self.up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up), 0.0


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Block(nn.Module):
    def __init__(self, r):
        super().__init__()
        d, self.h, self.g = r["dModel"], r["heads"], r["keyValueHeads"]
        self.size = d // self.h
        self.norm1, self.norm2 = nn.RMSNorm(d, eps=1e-5), nn.RMSNorm(d, eps=1e-5)
        self.q = nn.Linear(d, d, bias=False)
        self.kv = nn.Linear(d, 2 * self.g * self.size, bias=False)
        self.o = nn.Linear(d, d, bias=False)
        self.ff = Experts(d, r["hidden"], r["experts"], r["topK"]) if r["experts"] else Dense(d, r["hidden"])

    def forward(self, x, cos, sin):
        b, t, d = x.shape
        y = self.norm1(x)
        q = self.q(y).view(b, t, self.h, self.size).transpose(1, 2)
        k, v = self.kv(y).view(b, t, 2 * self.g, self.size).transpose(1, 2).chunk(2, 1)
        a = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True, enable_gqa=True)
        x = x + self.o(a.transpose(1, 2).reshape(b, t, d))
        out, aux = self.ff(self.norm2(x).view(b * t, d))
        return x + out.view(b, t, d), aux


class Model(nn.Module):
    def __init__(self, r):
        super().__init__()
        self.embedding = nn.Embedding(r["vocabularySize"], r["dModel"])
        self.blocks = nn.ModuleList(Block(r) for _ in range(r["layers"]))
        self.norm = nn.RMSNorm(r["dModel"], eps=1e-5)
        size, t = r["dModel"] // r["heads"], r["sequenceLength"]
        angle = torch.arange(t)[:, None] * 10000.0 ** (-torch.arange(0, size, 2) / size)[None]
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, ids, targets):
        x, aux = self.embedding(ids), 0.0
        cos, sin = self.cos.to(x.dtype), self.sin.to(x.dtype)
        for block in self.blocks:
            x, a = block(x, cos, sin)
            aux = aux + a
        logits = F.linear(self.norm(x), self.embedding.weight).float()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten()) + 0.01 * aux


def make(r):
    torch.manual_seed(0)
    model = Model(r)
    for p in model.parameters():
        if p.dim() > 1:
            nn.init.normal_(p, std=0.02)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids = torch.randint(0, r["vocabularySize"], (r["batchSequences"], r["sequenceLength"] + 1))

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = model(ids[:, :-1], ids[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


serve(make)
