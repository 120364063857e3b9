"""Makes the golden folders of gpt-oss beside it: python make_gpt_oss.py [name …]; see make.py, whose batches and files these are.

  gpt-oss         yarn without rounding, windows of 8 in layer 0, sinks, biases everywhere; gates and ups mostly beyond the limits of the clamp
  gpt-oss-mxfp4   experts in blocks of 4-bit numbers with scales, as published; expected from what transformers dequantises
"""
import json
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import GptOssConfig, GptOssForCausalLM
from transformers.integrations.mxfp4 import dequantize_convertops

from make import DENSE, HERE, YARN, dense

LAYER = 'model.layers.1.'
WANTED = [LAYER + 'self_attn.sinks', 'model.layers.0.self_attn.sinks', LAYER + 'self_attn.q_proj.bias', LAYER + 'self_attn.o_proj.bias',
          LAYER + 'mlp.router.weight', LAYER + 'mlp.router.bias', LAYER + 'mlp.experts.gate_up_proj', LAYER + 'mlp.experts.gate_up_proj_bias',
          LAYER + 'mlp.experts.down_proj', 'model.layers.0.mlp.experts.down_proj_bias']


def model(seed, **sizes):
    torch.manual_seed(seed)
    config = GptOssConfig(**{**DENSE, 'num_attention_heads': 4, 'num_key_value_heads': 2, 'head_dim': 8, **sizes}, num_local_experts=5,
                          num_experts_per_tok=2, sliding_window=8, rope_parameters={**YARN, 'truncate': False})
    made = GptOssForCausalLM(config)
    with torch.no_grad():
        for name, p in made.named_parameters():
            if name.endswith('proj_bias'):
                p.normal_(0, 0.5)  # they start at 0
            elif name.endswith('gate_up_proj'):
                p.mul_(5)
            elif name.endswith('self_attn.sinks'):
                p.add_(1.5)
    return made


def plain():
    made = model(71, intermediate_size=12)
    beyond = []
    for layer in made.model.layers:
        layer.mlp.experts.register_forward_pre_hook(lambda experts, given: beyond.append(
            (torch.einsum('td,edf->etf', given[0], experts.gate_up_proj).abs() > 7).float().mean().item()))
    dense('gpt-oss', made, WANTED, 81)
    print('beyond the limits:', beyond)


def mxfp4():
    made = model(72, hidden_size=32, intermediate_size=32)
    g = torch.Generator().manual_seed(82)
    packed = {}
    with torch.no_grad():
        for index, layer in enumerate(made.model.layers):
            for which in ('gate_up_proj', 'down_proj'):
                p = getattr(layer.mlp.experts, which)
                experts, inputs, outputs = p.shape
                blocks = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), generator=g, dtype=torch.uint8)
                scales = torch.randint(122, 127, (experts, outputs, inputs // 32), generator=g, dtype=torch.uint8)
                p.copy_(dequantize_convertops(blocks, scales).float())
                name = f'model.layers.{index}.mlp.experts.{which}'
                packed.update({name + '_blocks': blocks, name + '_scales': scales})
    dense('gpt-oss-mxfp4', made, [LAYER + 'self_attn.sinks', LAYER + 'mlp.experts.down_proj'], 83)
    folder = HERE / 'gpt-oss-mxfp4'
    tensors = {k: v for k, v in load_file(str(folder / 'model.safetensors')).items() if k + '_blocks' not in packed}
    save_file({**tensors, **packed}, str(folder / 'model.safetensors'), metadata={'format': 'pt'})
    config = json.loads((folder / 'config.json').read_text())
    config['quantization_config'] = {'quant_method': 'mxfp4', 'modules_to_not_convert': ['lm_head']}
    (folder / 'config.json').write_text(json.dumps(config, indent=2) + '\n')


SETS = {'gpt-oss': plain, 'gpt-oss-mxfp4': mxfp4}

if __name__ == '__main__':
    for name in sys.argv[1:] or SETS:
        SETS[name]()
