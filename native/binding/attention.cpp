#include "ops/attention.h"

#include "binding/families.h"

namespace libmoe::binding {
namespace {

const AttentionOps& ops(const Call& call) { return call.family(&Backend::attention); }

Types statistics_of(const TensorView& q) { return q.dtype == Dtype::f64 ? kF64 : kF32; }

AttentionOptions options_of(Call& call) {
  AttentionOptions o;
  o.causal = call.boolean("causal");
  o.window = call.integer("window", 0, 1 << 30);
  o.scale = call.number("scale");
  return o;
}

struct Sizes {
  Dim tokens{"tokens"}, query_heads{"query heads"}, heads{"heads"}, width{"width"}, value_width{"value width"}, bounds{"sequences + 1"};
  void check(const Call& call) const {
    call.require(heads > 0 && query_heads % heads == 0, "ERR_LIBMOE_SHAPE",
                 std::to_string(query_heads.value) + " query heads cannot share " + std::to_string(heads.value) + " key heads evenly");
    call.require(width > 0 && value_width > 0, "ERR_LIBMOE_SHAPE", "heads of width 0");
    call.require(bounds > 0, "ERR_LIBMOE_SHAPE", "sequenceOffsets needs at least one entry");
  }
};

// attention(q, k, v, offsets, sinks | null, out, logSum, causal, window, scale)
void attention(Call& call) {
  Sizes n;
  const TensorView q = call.tensor("q", kFloats, {&n.tokens, &n.query_heads, &n.width}), k = call.tensor("k", kFloats, {&n.tokens, &n.heads, &n.width}),
                   v = call.tensor("v", kFloats, {&n.tokens, &n.heads, &n.value_width}), offsets = call.tensor("sequenceOffsets", kI32, {&n.bounds}),
                   sinks = call.optional("sinks", kFloats, {&n.query_heads}), out = call.tensor("out", kFloats, {&n.tokens, &n.query_heads, &n.value_width}),
                   log_sum = call.optional("logSum", statistics_of(q), {&n.tokens, &n.query_heads});
  call.same_dtype("q", q, "k", k);
  call.same_dtype("q", q, "v", v);
  call.same_dtype("q", q, "sinks", sinks);
  call.same_dtype("q", q, "out", out);
  n.check(call);
  ops(call).attention(q, k, v, offsets, sinks, out, log_sum, options_of(call));
}

// attentionBackward(q, k, v, offsets, sinks | null, out, logSum, dOut, dq, dk, dv, dSinks | null, addSinks, causal, window, scale)
void attention_backward(Call& call) {
  Sizes n;
  const TensorView q = call.tensor("q", kFloats, {&n.tokens, &n.query_heads, &n.width}), k = call.tensor("k", kFloats, {&n.tokens, &n.heads, &n.width}),
                   v = call.tensor("v", kFloats, {&n.tokens, &n.heads, &n.value_width}), offsets = call.tensor("sequenceOffsets", kI32, {&n.bounds}),
                   sinks = call.optional("sinks", kFloats, {&n.query_heads}), out = call.tensor("out", kFloats, {&n.tokens, &n.query_heads, &n.value_width}),
                   log_sum = call.tensor("logSum", statistics_of(q), {&n.tokens, &n.query_heads}),
                   d_out = call.tensor("dOut", kFloats, {&n.tokens, &n.query_heads, &n.value_width}),
                   dq = call.tensor("dq", kFloats, {&n.tokens, &n.query_heads, &n.width}), dk = call.tensor("dk", kFloats, {&n.tokens, &n.heads, &n.width}),
                   dv = call.tensor("dv", kFloats, {&n.tokens, &n.heads, &n.value_width}),
                   d_sinks = call.optional("dSinks", statistics_of(q), {&n.query_heads});
  const bool add_sinks = call.boolean("addSinks");
  for (const TensorView* t : {&k, &v, &sinks, &out, &d_out, &dq, &dk, &dv}) call.same_dtype("q", q, "every other tensor", *t);
  n.check(call);
  call.require(!d_sinks || sinks, "ERR_LIBMOE_ARGUMENT", "dSinks without sinks");
  ops(call).attention_backward(q, k, v, offsets, sinks, out, log_sum, d_out, dq, dk, dv, d_sinks, add_sinks, options_of(call));
}

// attentionCached(q, keys, values, table, queryOffsets, keyLengths, sinks | null, out, window, scale)
void attention_cached(Call& call) {
  Sizes n;
  Dim pages("blocks"), page_size("block size"), sequences("sequences"), row("blocks per sequence");
  const TensorView q = call.tensor("q", kFloats, {&n.tokens, &n.query_heads, &n.width}),
                   keys = call.tensor("keys", kFloats, {&pages, &page_size, &n.heads, &n.width}),
                   values = call.tensor("values", kFloats, {&pages, &page_size, &n.heads, &n.value_width}), table = call.tensor("blockTable", kI32, {&sequences, &row}),
                   offsets = call.tensor("queryOffsets", kI32, {&n.bounds}), lengths = call.tensor("keyLengths", kI32, {&sequences}),
                   sinks = call.optional("sinks", kFloats, {&n.query_heads}), out = call.tensor("out", kFloats, {&n.tokens, &n.query_heads, &n.value_width});
  for (const TensorView* t : {&keys, &values, &sinks, &out}) call.same_dtype("q", q, "every other tensor", *t);
  n.check(call);
  call.require(page_size > 0, "ERR_LIBMOE_SHAPE", "blocks of size 0");
  call.require(n.bounds.value == sequences.value + 1, "ERR_LIBMOE_SHAPE", "queryOffsets must have one entry more than the block table has rows");
  AttentionOptions o;
  o.window = call.integer("window", 0, 1 << 30);
  o.scale = call.number("scale");
  ops(call).attention_cached(q, keys, values, table, offsets, lengths, sinks, out, o);
}

// cacheWrite(pool, rows, table, queryOffsets, keyLengths)
void cache_write(Call& call) {
  Dim pages("blocks"), page_size("block size"), heads("heads"), width("width"), tokens("tokens"), sequences("sequences"), row("blocks per sequence"),
      bounds("sequences + 1");
  const TensorView pool = call.tensor("pool", kFloats, {&pages, &page_size, &heads, &width}), rows = call.tensor("rows", kFloats, {&tokens, &heads, &width}),
                   table = call.tensor("blockTable", kI32, {&sequences, &row}), offsets = call.tensor("queryOffsets", kI32, {&bounds}),
                   lengths = call.tensor("keyLengths", kI32, {&sequences});
  call.same_dtype("pool", pool, "rows", rows);
  call.require(page_size > 0, "ERR_LIBMOE_SHAPE", "blocks of size 0");
  call.require(bounds.value == sequences.value + 1, "ERR_LIBMOE_SHAPE", "queryOffsets must have one entry more than the block table has rows");
  ops(call).cache_write(pool, rows, table, offsets, lengths);
}

// cacheCopyBlock(pool, from, to)
void cache_copy_block(Call& call) {
  Dim pages("blocks"), page_size("block size"), heads("heads"), width("width");
  const TensorView pool = call.tensor("pool", kFloats, {&pages, &page_size, &heads, &width});
  const int64_t from = call.integer("from", 0, pages - 1), to = call.integer("to", 0, pages - 1);
  ops(call).cache_copy_block(pool, from, to);
}

}  // namespace

void bind_attention(Napi::Object exports) {
  expose(exports, "attention", attention);
  expose(exports, "attentionBackward", attention_backward);
  expose(exports, "attentionCached", attention_cached);
  expose(exports, "cacheWrite", cache_write);
  expose(exports, "cacheCopyBlock", cache_copy_block);
}

}  // namespace libmoe::binding
