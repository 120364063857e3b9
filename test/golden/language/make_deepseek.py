"""Makes the golden folders of DeepSeek's models beside it: python make_deepseek.py [name …]; see make.py, whose batches and files these are.

  deepseek-v2          as V2-Lite: queries without a latent, greedy choice, weights not divided by their sum
  deepseek-v2-groups   as V2: queries through a latent, biases of attention, choice from the best groups, scaled weights
  deepseek-v3          queries through a latent, interleaved pairs, choice by corrected sigmoids from the best groups, weights divided by their sum
  deepseek-v3-halves   queries without a latent, pairs of halves, one group, weights as they are, every layer a mixture
All but the last: yarn with mscale and mscale_all_dim. Norms have eps 1e-3, those of latents keep 1e-6.
"""
import sys

import torch
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM, DeepseekV3Config, DeepseekV3ForCausalLM

from make import DENSE, YARN, dense

MLA = {**DENSE, 'num_key_value_heads': 3, 'num_hidden_layers': 2, 'rms_norm_eps': 1e-3, 'kv_lora_rank': 10, 'qk_rope_head_dim': 8,
       'qk_nope_head_dim': 4, 'v_head_dim': 6, 'n_routed_experts': 8, 'num_experts_per_tok': 3, 'moe_intermediate_size': 8}
SCALES = {**YARN, 'mscale': 0.7, 'mscale_all_dim': 1.4}
ATTENTION = 'model.layers.0.self_attn.'
MIXTURE = 'model.layers.1.mlp.'
WANTED = [ATTENTION + 'kv_a_proj_with_mqa.weight', ATTENTION + 'kv_b_proj.weight', ATTENTION + 'kv_a_layernorm.weight', ATTENTION + 'o_proj.weight',
          MIXTURE + 'gate.weight', MIXTURE + 'shared_experts.down_proj.weight', MIXTURE + 'experts.1.up_proj.weight',
          MIXTURE + 'experts.3.down_proj.weight']


def v2():
    torch.manual_seed(51)
    config = DeepseekV2Config(**MLA, q_lora_rank=None, first_k_dense_replace=1, n_shared_experts=2, rope_parameters=dict(SCALES),
                              topk_method='greedy', n_group=1, topk_group=1, aux_loss_alpha=0.003, seq_aux=True)
    dense('deepseek-v2', DeepseekV2ForCausalLM(config), [*WANTED, ATTENTION + 'q_proj.weight'], 61)


def v2_groups():
    torch.manual_seed(52)
    config = DeepseekV2Config(**MLA, q_lora_rank=9, first_k_dense_replace=1, n_shared_experts=1, rope_parameters=dict(SCALES),
                              topk_method='group_limited_greedy', n_group=4, topk_group=2, routed_scaling_factor=3.0, attention_bias=True,
                              aux_loss_alpha=0.002, seq_aux=False)
    dense('deepseek-v2-groups', DeepseekV2ForCausalLM(config),
             [*WANTED, ATTENTION + 'q_a_proj.weight', ATTENTION + 'q_a_proj.bias', ATTENTION + 'q_b_proj.weight',
              ATTENTION + 'q_a_layernorm.weight', ATTENTION + 'kv_a_proj_with_mqa.bias'], 62)


def corrected(model, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # as large as the differences of scores, so that it decides
        for name, b in model.named_buffers():
            if name.endswith('e_score_correction_bias'):
                b.copy_(torch.randn(b.shape, generator=g) * 0.2)
    return model


def v3():
    torch.manual_seed(53)
    config = DeepseekV3Config(**MLA, q_lora_rank=9, first_k_dense_replace=1, n_shared_experts=1, rope_parameters=dict(SCALES), n_group=4,
                              topk_group=2, routed_scaling_factor=2.5, tie_word_embeddings=True)
    dense('deepseek-v3', corrected(DeepseekV3ForCausalLM(config), 71),
             [*WANTED, ATTENTION + 'q_a_proj.weight', ATTENTION + 'q_b_proj.weight', ATTENTION + 'q_a_layernorm.weight'], 63)


def v3_halves():
    torch.manual_seed(54)
    config = DeepseekV3Config(**MLA, q_lora_rank=None, first_k_dense_replace=0, n_shared_experts=2, n_group=1, topk_group=1,
                              rope_interleave=False, norm_topk_prob=False, routed_scaling_factor=1.5)
    dense('deepseek-v3-halves', corrected(DeepseekV3ForCausalLM(config), 72), [*WANTED, ATTENTION + 'q_proj.weight'], 64)


SETS = {'deepseek-v2': v2, 'deepseek-v2-groups': v2_groups, 'deepseek-v3': v3, 'deepseek-v3-halves': v3_halves}

if __name__ == '__main__':
    for name in sys.argv[1:] or SETS:
        SETS[name]()
