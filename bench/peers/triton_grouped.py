"""A grouped product over rows sorted by expert, in Triton: one program per tile of one expert's rows, the gather in its load. What users of Triton write, and
the way of LibMoE's cvmm, but with its tile list made on the device, larger tiles and sums in a fixed order."""
import torch
import triton
import triton.language as tl

BM, BN, BK = 128, 128, 32


@triton.jit
def product_kernel(a, w, out, rows, ends, tile_ends, N, K, E, expert_stride, n_stride, k_stride,
                   GATHER: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    tile = tl.program_id(0)
    expert = 0
    for e in range(0, E):  # a few dozen loads from L2
        expert += tl.where(tl.load(tile_ends + e) <= tile, 1, 0)
    if expert >= E:
        return
    first_tile = tl.load(tile_ends + expert - 1, mask=expert > 0, other=0)
    first = tl.load(ends + expert - 1, mask=expert > 0, other=0)
    end = tl.load(ends + expert)
    m = first + (tile - first_tile) * BM + tl.arange(0, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    valid = m < end
    source = tl.load(rows + m, mask=valid, other=0) if GATHER else m
    total = tl.zeros((BM, BN), tl.float32)
    for k0 in range(0, K, BK):
        k = k0 + tl.arange(0, BK)
        left = tl.load(a + source.to(tl.int64)[:, None] * K + k[None, :], mask=valid[:, None] & (k[None, :] < K), other=0.0)
        right = tl.load(w + expert.to(tl.int64) * expert_stride + k[:, None] * k_stride + n[None, :] * n_stride,
                        mask=(k[:, None] < K) & (n[None, :] < N), other=0.0)
        total = tl.dot(left, right, total)
    tl.store(out + m.to(tl.int64)[:, None] * N + n[None, :], total.to(out.dtype.element_ty), mask=valid[:, None] & (n[None, :] < N))


@triton.jit
def weight_kernel(g, a, dw, rows, ends, N, K, GATHER: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    expert = tl.program_id(0)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    k = tl.program_id(2) * BM + tl.arange(0, BM)
    first = tl.load(ends + expert - 1, mask=expert > 0, other=0)
    end = tl.load(ends + expert)
    total = tl.zeros((BN, BM), tl.float32)
    for row in range(first, end, BK):
        m = row + tl.arange(0, BK)
        valid = m < end
        source = tl.load(rows + m, mask=valid, other=0) if GATHER else m
        left = tl.load(g + m.to(tl.int64)[None, :] * N + n[:, None], mask=valid[None, :] & (n[:, None] < N), other=0.0)
        right = tl.load(a + source.to(tl.int64)[:, None] * K + k[None, :], mask=valid[:, None] & (k[None, :] < K), other=0.0)
        total = tl.dot(left, right, total)
    tl.store(dw + expert.to(tl.int64) * N * K + n[:, None] * K + k[None, :], total.to(dw.dtype.element_ty), mask=(n[:, None] < N) & (k[None, :] < K))


def forward(a, w, rows, plan, transposed):
    """a[rows] times each row's expert: w[E, N, K] as it lies, or its transpose."""
    ends, tile_ends, tiles, count = plan
    experts, n, k = w.shape if not transposed else (w.shape[0], w.shape[2], w.shape[1])
    n_stride, k_stride = (w.stride(1), w.stride(2)) if not transposed else (w.stride(2), w.stride(1))
    out = a.new_empty(count, n)
    product_kernel[(tiles, triton.cdiv(n, BN))](
        a, w, out, a if rows is None else rows, ends, tile_ends, n, k, experts, w.stride(0), n_stride, k_stride, rows is not None, BM, BN, BK, num_warps=8, num_stages=3)
    return out


class Grouped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, w, rows, plan):
        ctx.save_for_backward(a, w)
        ctx.rows, ctx.plan = rows, plan
        return forward(a, w, rows, plan, False)

    @staticmethod
    def backward(ctx, g):
        a, w = ctx.saved_tensors
        rows, plan = ctx.rows, ctx.plan
        g = g.contiguous()
        da = forward(g, w, None, plan, True)
        if rows is not None:  # every source row was gathered the same number of times, slots in order: a sum of K rows
            da = da.index_select(0, plan.place).view(a.shape[0], -1, a.shape[1]).sum(1)
        dw = torch.empty_like(w)
        experts, n, k = w.shape
        weight_kernel[(experts, triton.cdiv(n, BN), triton.cdiv(k, BM))](g, a, dw, a if rows is None else rows, plan[0], n, k, rows is not None, BM, BN, BK, num_warps=8, num_stages=3)
        return da, dw, None, None


class Plan(tuple):
    """ends of the experts' rows, ends of their tiles, number of programs, number of rows; `place` of every slot in the sorted order."""

    place = None


def experts(x, choices, weights, up, down, act, sorted_slots):
    order, place, counts = sorted_slots
    tile_ends = ((counts + BM - 1) // BM).cumsum(0).to(torch.int32)
    # No host read: as many programs as there can be tiles, those beyond the last end at once.
    plan = Plan((counts.cumsum(0).to(torch.int32), tile_ends, order.numel() // BM + up.shape[0], order.numel()))
    plan.place = place
    rows = (order // choices.shape[1]).to(torch.int32)
    h = act(Grouped.apply(x, up, rows, plan))
    y = Grouped.apply(h, down, None, plan).index_select(0, place).view(*choices.shape, -1)
    return (y * weights.to(y.dtype).unsqueeze(-1)).sum(1)
