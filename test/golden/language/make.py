"""Makes the golden files beside it: python make.py [name …] (torch, transformers, safetensors; CPU, fp32, one thread).

Each folder holds config.json + model.safetensors as a user would have them, and expected.safetensors with ids, targets, offsets, logits, loss and
gradients (named `gradient.<name in model.safetensors>`) computed by PyTorch.
  llama, llama-tied, mixtral   tiny random models of transformers, saved by transformers
  libmoe-dense, libmoe-moe     LibMoE's form, written here from its specification; names are libmoe's own
  llama3, mistral, olmoe, …    families of transformers on inputs beyond their window (8) and original length (16); see dense()
  deepseek-v2, deepseek-v3, …  made by make_deepseek.py
rotary.json holds the angles per position and the attention factor that transformers computes for each kind of rotary scaling.
"""
import json
import math
import pathlib
import re
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import (GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, MixtralConfig,
                          Llama4ForCausalLM, Llama4TextConfig, MixtralForCausalLM, OlmoeConfig, OlmoeForCausalLM, Phi3Config, Phi3ForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen2MoeConfig,
                          Qwen2MoeForCausalLM, Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

HERE = pathlib.Path(__file__).parent
torch.set_num_threads(1)


def batch(vocab, lengths, seed):
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocab, (sum(lengths),), generator=g)
    targets = torch.randint(0, vocab, (sum(lengths),), generator=g)
    targets[3] = -1  # one position that is not predicted
    offsets = [0]
    for n in lengths:
        offsets.append(offsets[-1] + n)
    return ids, targets, offsets


def write(folder, ids, targets, offsets, logits, loss, gradients, extra=None):
    tensors = {
        'ids': ids.int(), 'targets': targets.int(), 'offsets': torch.tensor(offsets, dtype=torch.int32),
        'logits': logits.detach(), 'loss': loss.detach().reshape(1), **(extra or {}),
    }
    for name, g in gradients.items():
        tensors['gradient.' + name] = g.contiguous().clone()
    save_file(tensors, str(HERE / folder / 'expected.safetensors'))


def gradients_of(model, wanted):
    parameters = dict(model.named_parameters())
    gradients = {}
    for name in wanted:
        if re.search(r'\.experts\.\d+\.', name):  # transformers 5 keeps all experts in one tensor; the file has one per expert
            layer, expert, which = name.split('.')[2], int(name.split('.')[5]), name.split('.')[6]
            mlp = f'model.layers.{layer}.mlp.experts.'
            down = which in ('w2', 'down_proj')
            fused = parameters[mlp + ('down_proj' if down else 'gate_up_proj')].grad[expert]
            half = fused.shape[0] // 2
            gradients[name] = fused if down else fused[:half] if which in ('w1', 'gate_proj') else fused[half:]
        else:
            gradients[name] = parameters[name.replace('block_sparse_moe', 'mlp')].grad
    return gradients


def hugging_face(folder, model, wanted, seed):
    model.eval().float()
    (HERE / folder).mkdir(exist_ok=True)
    model.save_pretrained(str(HERE / folder), safe_serialization=True)
    for extra in ('generation_config.json',):
        (HERE / folder / extra).unlink(missing_ok=True)
    ids, targets, offsets = batch(model.config.vocab_size, [7, 5, 1], seed)
    logits = torch.cat([model(ids[a:b][None]).logits[0] for a, b in zip(offsets, offsets[1:])])
    loss = F.cross_entropy(logits, targets, ignore_index=-1)
    loss.backward()
    write(folder, ids, targets, offsets, logits, loss, gradients_of(model, wanted))


def llamas():
    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=61, hidden_size=32, intermediate_size=44, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                         max_position_embeddings=64, rms_norm_eps=1e-6, initializer_range=0.2, tie_word_embeddings=False, attn_implementation='eager',
                         bos_token_id=None, eos_token_id=None)
    hugging_face('llama', LlamaForCausalLM(config), [
        'model.embed_tokens.weight', 'model.layers.0.self_attn.q_proj.weight', 'model.layers.0.self_attn.k_proj.weight',
        'model.layers.1.mlp.gate_proj.weight', 'model.layers.1.mlp.up_proj.weight', 'model.layers.1.mlp.down_proj.weight',
        'model.layers.0.input_layernorm.weight', 'model.norm.weight', 'lm_head.weight'], 11)
    torch.manual_seed(2)
    config = LlamaConfig(vocab_size=61, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
                         head_dim=12, max_position_embeddings=64, rms_norm_eps=1e-5, initializer_range=0.2, tie_word_embeddings=True,
                         attention_bias=True, rope_parameters={'rope_type': 'default', 'rope_theta': 500.0}, attn_implementation='eager',
                         bos_token_id=None, eos_token_id=None)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith('bias'):
                p.normal_(0, 0.3)
    hugging_face('llama-tied', model, ['model.embed_tokens.weight', 'model.layers.0.self_attn.v_proj.bias',
                                       'model.layers.1.self_attn.o_proj.weight'], 12)


def mixtral():
    torch.manual_seed(3)
    config = MixtralConfig(vocab_size=61, hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                           max_position_embeddings=64, num_local_experts=4, num_experts_per_tok=2, initializer_range=0.2, attn_implementation='eager',
                           bos_token_id=None, eos_token_id=None)
    moe = 'model.layers.0.block_sparse_moe.'
    hugging_face('mixtral', MixtralForCausalLM(config), [
        moe + 'gate.weight', moe + 'experts.0.w1.weight', moe + 'experts.1.w2.weight', moe + 'experts.3.w3.weight', 'lm_head.weight'], 13)


DENSE = dict(vocab_size=61, hidden_size=24, intermediate_size=28, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
             max_position_embeddings=64, initializer_range=0.25, attn_implementation='eager', bos_token_id=None, eos_token_id=None,
             pad_token_id=None)
LLAMA3 = {'rope_type': 'llama3', 'rope_theta': 50.0, 'factor': 4.0, 'low_freq_factor': 0.25, 'high_freq_factor': 1.5,
          'original_max_position_embeddings': 16}
YARN = {'rope_type': 'yarn', 'rope_theta': 50.0, 'factor': 4.0, 'original_max_position_embeddings': 16, 'beta_fast': 2.0, 'beta_slow': 0.25}
LONGROPE = {'rope_type': 'longrope', 'rope_theta': 50.0, 'short_factor': [1.0, 1.1, 1.3], 'long_factor': [1.2, 2.5, 4.0],
            'original_max_position_embeddings': 16, 'partial_rotary_factor': 0.75}


def dense(folder, model, wanted, seed):
    """Sequences of 40 and 23 tokens as one batch padded on the right, then one of 12 by itself: longrope counts the longest of a batch."""
    model.eval().float()
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # transformers starts biases at 0 and norms at 1, which would hide a mistake
        for name, p in model.named_parameters():
            if p.dim() == 1:
                p.add_(torch.randn(p.shape, generator=g) * 0.2)
    (HERE / folder).mkdir(exist_ok=True)
    model.save_pretrained(str(HERE / folder), safe_serialization=True)
    (HERE / folder / 'generation_config.json').unlink(missing_ok=True)
    lengths = [40, 23, 12]
    ids, targets, offsets = batch(model.config.vocab_size, lengths, seed)
    first, second, third = ids.split(lengths)
    padded = torch.zeros(2, 40, dtype=torch.long)
    padded[0], padded[1, :23] = first, second
    mask = torch.ones(2, 40, dtype=torch.long)
    mask[1, 23:] = 0
    both = model(padded, attention_mask=mask).logits
    logits = torch.cat([both[0], both[1, :23], model(third[None]).logits[0]])
    loss = F.cross_entropy(logits, targets, ignore_index=-1)
    loss.backward()
    write(folder, ids, targets, offsets, logits, loss, gradients_of(model, wanted))


def llama3():
    torch.manual_seed(31)
    dense('llama3', LlamaForCausalLM(LlamaConfig(**DENSE, rope_parameters=dict(LLAMA3), tie_word_embeddings=True)),
          ['model.layers.0.self_attn.q_proj.weight', 'model.layers.1.self_attn.k_proj.weight'], 41)


def mistral():
    torch.manual_seed(32)
    dense('mistral', MistralForCausalLM(MistralConfig(**DENSE, sliding_window=8)),
          ['model.layers.0.self_attn.q_proj.weight', 'model.layers.1.self_attn.v_proj.weight'], 42)


def qwen2():
    torch.manual_seed(33)
    dense('qwen2', Qwen2ForCausalLM(Qwen2Config(**DENSE, rope_parameters=dict(YARN), use_sliding_window=True, sliding_window=8, max_window_layers=1)),
          ['model.layers.0.self_attn.k_proj.bias', 'model.layers.1.self_attn.q_proj.bias'], 43)


def qwen3():
    torch.manual_seed(34)
    layers = ['sliding_attention', 'full_attention']
    dense('qwen3', Qwen3ForCausalLM(Qwen3Config(**DENSE, head_dim=6, use_sliding_window=True, sliding_window=8, max_window_layers=0,
                                                layer_types=layers, tie_word_embeddings=True)),
          ['model.layers.0.self_attn.q_norm.weight', 'model.layers.1.self_attn.k_norm.weight', 'model.layers.1.self_attn.q_proj.weight'], 44)


def phi3():
    torch.manual_seed(35)
    sizes = {**DENSE, 'num_attention_heads': 4, 'num_key_value_heads': 2, 'hidden_size': 32, 'vocab_size': 53}
    dense('phi3', Phi3ForCausalLM(Phi3Config(**sizes, rope_parameters=dict(LONGROPE), original_max_position_embeddings=16, sliding_window=8)),
          ['model.layers.0.self_attn.qkv_proj.weight', 'model.layers.1.mlp.gate_up_proj.weight'], 45)


def gpt2():
    torch.manual_seed(36)
    config = GPT2Config(vocab_size=61, n_positions=48, n_embd=24, n_layer=2, n_head=3, n_inner=40, initializer_range=0.25, resid_pdrop=0.0,
                        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None, attn_implementation='eager')
    dense('gpt2', GPT2LMHeadModel(config), ['transformer.wte.weight', 'transformer.wpe.weight', 'transformer.h.0.attn.c_attn.weight',
                                            'transformer.h.1.attn.c_attn.bias', 'transformer.h.1.mlp.c_fc.weight', 'transformer.h.0.ln_1.bias'], 46)


def olmoe():
    torch.manual_seed(51)
    dense('olmoe', OlmoeForCausalLM(OlmoeConfig(**DENSE, rope_parameters=dict(YARN), num_experts=5, num_experts_per_tok=2)), [
        'model.layers.0.self_attn.q_norm.weight', 'model.layers.1.self_attn.k_proj.weight', 'model.layers.0.mlp.gate.weight',
        'model.layers.0.mlp.experts.0.gate_proj.weight', 'model.layers.1.mlp.experts.3.up_proj.weight',
        'model.layers.1.mlp.experts.4.down_proj.weight'], 61)


def mixtral_window():
    torch.manual_seed(52)
    dense('mixtral-window', MixtralForCausalLM(MixtralConfig(**DENSE, head_dim=8, sliding_window=8, num_local_experts=4, num_experts_per_tok=2)), [
        'model.layers.0.self_attn.q_proj.weight', 'model.layers.1.self_attn.k_proj.weight', 'model.layers.0.block_sparse_moe.gate.weight',
        'model.layers.1.block_sparse_moe.experts.3.w2.weight'], 62)


def qwen2_moe():
    torch.manual_seed(53)
    dense('qwen2-moe', Qwen2MoeForCausalLM(Qwen2MoeConfig(
        **{**DENSE, 'num_hidden_layers': 4}, rope_parameters=dict(LLAMA3), use_sliding_window=True, sliding_window=8, max_window_layers=0,
        layer_types=['sliding_attention', 'full_attention'] * 2,
        moe_intermediate_size=12, shared_expert_intermediate_size=20, num_experts=5, num_experts_per_tok=2, decoder_sparse_step=2)), [
        'model.layers.0.self_attn.q_proj.bias', 'model.layers.0.mlp.up_proj.weight', 'model.layers.1.mlp.gate.weight',
        'model.layers.1.mlp.shared_expert_gate.weight', 'model.layers.3.mlp.shared_expert.up_proj.weight',
        'model.layers.1.mlp.experts.2.gate_proj.weight'], 63)


def qwen3_moe():
    torch.manual_seed(52)
    dense('qwen3-moe', Qwen3MoeForCausalLM(Qwen3MoeConfig(
        **{**DENSE, 'num_hidden_layers': 3}, head_dim=6, rope_parameters=dict(LLAMA3), use_sliding_window=True, sliding_window=8, attention_bias=True,
        moe_intermediate_size=12, num_experts=5, num_experts_per_tok=2, norm_topk_prob=True, mlp_only_layers=[1])), [
        'model.layers.0.self_attn.q_norm.weight', 'model.layers.1.mlp.up_proj.weight', 'model.layers.2.mlp.gate.weight',
        'model.layers.0.mlp.experts.4.up_proj.weight', 'model.layers.2.mlp.experts.1.down_proj.weight'], 62)


def llama4():
    torch.manual_seed(273)  # no token of the bf16 test is so near a tie that rounding sends it elsewhere
    model = Llama4ForCausalLM(Llama4TextConfig(
        **{**DENSE, 'num_hidden_layers': 4, 'intermediate_size': 12}, head_dim=6, intermediate_size_mlp=28, rope_parameters=dict(LLAMA3),
        num_local_experts=5, num_experts_per_tok=1, interleave_moe_layer_step=2, no_rope_layers=[1, 0, 1, 0], attention_chunk_size=8, floor_scale=8,
        attn_scale=0.5))
    dense('llama4', model, [
        'model.layers.0.self_attn.q_proj.weight', 'model.layers.1.self_attn.k_proj.weight', 'model.layers.0.feed_forward.up_proj.weight',
        'model.layers.1.feed_forward.router.weight', 'model.layers.3.feed_forward.experts.gate_up_proj',
        'model.layers.1.feed_forward.experts.down_proj', 'model.layers.3.feed_forward.shared_expert.gate_proj.weight'], 64)


def rotary():
    """Frequencies and attention factors of 4 pairs."""
    cases = {'llama3': LLAMA3, 'linear': {'rope_type': 'linear', 'rope_theta': 500.0, 'factor': 2.5}, 'yarn': YARN,
             'yarn, ramp not rounded': {**YARN, 'truncate': False, 'beta_slow': 0.4},
             'yarn, two scales': {**YARN, 'mscale': 0.7, 'mscale_all_dim': 1.4}, 'yarn, own factor': {**YARN, 'attention_factor': 1.25},
             'yarn, one point': {**YARN, 'beta_fast': 2.4, 'beta_slow': 2.4, 'truncate': False},
             'longrope': {**LONGROPE, 'short_factor': [1.0, 1.1, 1.3, 1.5], 'long_factor': [1.2, 2.5, 4.0, 4.5], 'partial_rotary_factor': 1.0},
             'longrope, own factor': {**LONGROPE, 'short_factor': [1.0] * 4, 'long_factor': [2.0] * 4, 'partial_rotary_factor': 1.0, 'factor': 8.0}}
    found = {}
    for name, parameters in cases.items():
        config = LlamaConfig(**DENSE, rope_parameters=dict(parameters))
        compute = ROPE_INIT_FUNCTIONS[parameters['rope_type']]
        short, factor = compute(config, 'cpu')
        long, _ = compute(config, 'cpu', seq_len=17)
        found[name] = {'parameters': parameters, 'frequencies': short.tolist(), 'longFrequencies': long.tolist(), 'attentionFactor': factor}
    (HERE / 'rotary.json').write_text(json.dumps(found, indent=1) + '\n')


def rotate(x, dims, base=10000.0):  # x [tokens, heads, head_dim]
    half = dims // 2
    angle = torch.arange(x.shape[0])[:, None] * base ** (-torch.arange(half) * 2 / dims)
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    a, b, rest = x[..., :half], x[..., half:dims], x[..., dims:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


def libmoe(folder, experts):
    d, heads, head_dim, layers, vocab, eps = 24, 2, 10, 2, 53, 1e-5
    hidden, top_k = (6, 2) if experts else (20, 0)
    rotary = 2 * (head_dim // 2 // 2)
    torch.manual_seed(4 if experts else 5)
    w = {'embedding.weight': torch.randn(vocab, d), 'output.weight': torch.randn(vocab, d) * 0.3, 'output.bias': torch.randn(vocab) * 0.3,
         'finalNorm.weight': 1 + 0.1 * torch.randn(d), 'finalNorm.bias': 0.1 * torch.randn(d)}
    for i in range(layers):
        p = f'blocks.{i}.'
        for norm in ('attentionNorm', 'feedForwardNorm'):
            w[p + norm + '.weight'] = 1 + 0.1 * torch.randn(d)
            w[p + norm + '.bias'] = 0.1 * torch.randn(d)
        for name in ('query', 'key', 'value'):
            w[p + f'attention.{name}.weight'] = torch.randn(heads * head_dim, d) * 0.3
        w[p + 'attention.output.weight'] = torch.randn(d, heads * head_dim) * 0.3
        if experts:
            w[p + 'moe.router.weight'] = torch.randn(experts, d) * 0.5
            w[p + 'moe.experts.up'] = torch.randn(experts, hidden, d) * 0.4
            w[p + 'moe.experts.down'] = torch.randn(experts, d, hidden) * 0.4
        else:
            w[p + 'feedForward.up'] = torch.randn(hidden, d) * 0.3
            w[p + 'feedForward.upBias'] = torch.randn(hidden) * 0.3
            w[p + 'feedForward.down'] = torch.randn(d, hidden) * 0.3
            w[p + 'feedForward.downBias'] = torch.randn(d) * 0.3
    for t in w.values():
        t.requires_grad_()
    balance = []

    def forward(ids, lengths):
        x = w['embedding.weight'][ids]
        for i in range(layers):
            p = f'blocks.{i}.'
            norm = lambda name, x: F.layer_norm(x, (d,), w[p + name + '.weight'], w[p + name + '.bias'], eps)
            n = norm('attentionNorm', x)
            out = []
            for part in n.split(lengths):
                q, k, v = ((part @ w[p + f'attention.{name}.weight'].T).reshape(len(part), heads, head_dim) for name in ('query', 'key', 'value'))
                q, k = rotate(q, rotary), rotate(k, rotary)
                score = torch.einsum('qhd,khd->hqk', q, k) * head_dim ** -0.5
                score = score.masked_fill(~torch.ones(len(part), len(part), dtype=torch.bool).tril(), -math.inf)
                out.append(torch.einsum('hqk,khd->qhd', score.softmax(-1), v).reshape(len(part), -1))
            x = x + torch.cat(out) @ w[p + 'attention.output.weight'].T
            n = norm('feedForwardNorm', x)
            if experts:
                probability = (n @ w[p + 'moe.router.weight'].T).softmax(-1)
                top, chosen = probability.topk(top_k)
                weight = top / (top.sum(-1, keepdim=True) + 1e-20)
                y = torch.zeros_like(n)
                for e in range(experts):
                    share = (weight * (chosen == e)).sum(-1, keepdim=True)
                    y = y + share * (F.relu(n @ w[p + 'moe.experts.up'][e].T) @ w[p + 'moe.experts.down'][e].T)
                x = x + y
                # LibMoE's `standard` regulariser, per sequence: sum_i f_i * mean_t s_i
                per_sequence = []
                for s, c in zip(probability.split(lengths), chosen.split(lengths)):
                    f = F.one_hot(c, experts).float().sum((0, 1)) * experts / c.numel()
                    per_sequence.append((f * s.mean(0)).sum())
                balance.append(torch.stack(per_sequence).mean())
            else:
                x = x + F.linear(F.relu(F.linear(n, w[p + 'feedForward.up'], w[p + 'feedForward.upBias'])), w[p + 'feedForward.down'],
                                 w[p + 'feedForward.downBias'])
        x = F.layer_norm(x, (d,), w['finalNorm.weight'], w['finalNorm.bias'], eps)
        return F.linear(x, w['output.weight'], w['output.bias'])

    ids, targets, offsets = batch(vocab, [8, 8], 21)
    logits = forward(ids, [8, 8])
    loss = F.cross_entropy(logits, targets, ignore_index=-1)
    extra = {}
    total = loss
    if experts:
        regulariser = 0.01 * torch.stack(balance).sum()
        total = loss + regulariser
        extra['regulariser'] = regulariser.detach().reshape(1)
    total.backward()
    (HERE / folder).mkdir(exist_ok=True)
    config = {'vocabularySize': vocab, 'dModel': d, 'layers': layers, 'heads': heads, 'headDim': head_dim, 'norm': 'layernorm', 'eps': eps,
              'rotary': {'fraction': 0.5, 'base': 10000}, 'outputBias': True, 'maxPositions': 32, 'init': 'libmoe',
              'feedForward': {'hidden': 20, 'activation': 'relu', 'gated': False, 'bias': True}}
    if experts:
        config['moe'] = {'experts': experts, 'topK': top_k, 'router': {'name': 'smoe'},
                         'expert': {'hidden': hidden, 'activation': 'relu', 'gated': False, 'bias': False}}
    (HERE / folder / 'config.json').write_text(json.dumps(
        {'architectures': ['LibMoeForCausalLM'], 'model_type': 'libmoe', 'libmoe': {'version': 1, 'model': config}}, indent=1))
    save_file({k: v.detach() for k, v in w.items()}, str(HERE / folder / 'model.safetensors'))
    write(folder, ids, targets, offsets, logits, loss, {k: v.grad for k, v in w.items()}, extra)


SETS = {'llama': llamas, 'mixtral': mixtral, 'libmoe-dense': lambda: libmoe('libmoe-dense', 0), 'libmoe-moe': lambda: libmoe('libmoe-moe', 5),
        'rotary': rotary, 'llama3': llama3, 'mistral': mistral, 'qwen2': qwen2, 'qwen3': qwen3, 'phi3': phi3, 'gpt2': gpt2,
        'olmoe': olmoe, 'mixtral-window': mixtral_window, 'qwen2-moe': qwen2_moe, 'qwen3-moe': qwen3_moe, 'llama4': llama4}

if __name__ == '__main__':
    for name in sys.argv[1:] or SETS:
        SETS[name]()
