"""Makes the golden files beside it: python make.py (torch, transformers, safetensors; CPU, fp32, one thread).

Each folder holds config.json + model.safetensors as transformers saves a small random tower, and expected.safetensors, computed by transformers:
  hidden.<i>       every hidden state, of which rows 0, STEP, 2·STEP, … of each image are kept: [images, kept, width]
  last, pooled     last_hidden_state (likewise) and pooler_output
  gradient.<name>  of the mean square of the last hidden state, for some parameters (matrices: the first 8 rows)
  resized.<side>   the last hidden state of images of another size, positions interpolated
  scales           S² features at scales 1, 3, written here from its description: torch's interpolate, tiles one by one
The pixels are those of pixels.py, which the test repeats. contrastive.safetensors holds SigLIP's loss and its gradients.
"""
import json
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel, SiglipConfig, SiglipModel, SiglipVisionConfig, SiglipVisionModel

from pixels import STEP, pixels

HERE = pathlib.Path(__file__).parent
torch.set_num_threads(1)


def randomised(model, seed):
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=g)
        with torch.no_grad():
            if 'norm' in name and name.endswith('weight'):
                p.copy_(1 + 0.2 * noise)
            elif p.dim() >= 2:
                p.copy_(noise * 1.5 * (p[0].numel()) ** -0.5)
            else:
                p.copy_(0.2 * noise)
    return model.eval()


def save(model, folder, prefix):
    (HERE / folder).mkdir(exist_ok=True)
    config = model.config.to_dict()
    config.pop('transformers_version', None)
    (HERE / folder / 'config.json').write_text(json.dumps({'architectures': [type(model).__name__], **config}, indent=2) + '\n')
    save_file({prefix + k: v.detach().contiguous() for k, v in model.state_dict().items()}, str(HERE / folder / 'model.safetensors'))


def kept(h):
    return h.detach()[:, ::STEP].contiguous()


def scaled(model, x, clip, layer):
    """S²: at scale 3 the image is enlarged, cut into 3 × 3 tiles, and the features of the tiles are put together and averaged down."""
    def features(t):
        h = model(t, output_hidden_states=True).hidden_states[layer]
        h = h[:, 1:] if clip else h
        grid = int(h.shape[1] ** 0.5)
        return h.transpose(1, 2).reshape(t.shape[0], -1, grid, grid)

    side = x.shape[-1]
    one = features(x)
    large = F.interpolate(x, size=(3 * side, 3 * side), mode='bicubic', align_corners=False)
    rows = []
    for i in range(3):
        rows.append(torch.cat([features(large[:, :, i * side:(i + 1) * side, j * side:(j + 1) * side]) for j in range(3)], dim=3))
    picture = torch.cat(rows, dim=2)
    both = torch.cat([one, F.interpolate(picture, size=one.shape[-2:], mode='area')], dim=1)
    return both.flatten(2).transpose(1, 2).detach().contiguous()


def tower(folder, model, side, seed, prefix='', other=(), gradients=(), scales_layer=None):
    clip = folder.startswith('clip')
    randomised(model, seed)
    save(model, folder, prefix)
    x = pixels(2, side)
    out = model(x, output_hidden_states=True)
    expected = {f'hidden.{i}': kept(h) for i, h in enumerate(out.hidden_states)}
    expected['last'] = kept(out.last_hidden_state)
    if out.pooler_output is not None:
        expected['pooled'] = out.pooler_output.detach().contiguous()
    if gradients:
        out.hidden_states[-1].square().mean().backward()
        parameters = dict(model.named_parameters())
        for name in gradients:
            g = parameters[name].grad
            expected[f'gradient.{prefix}{name}'] = (g[:8] if g.dim() > 1 else g).contiguous().clone()
    with torch.no_grad():
        for size in other:
            h = model(pixels(2, size), output_hidden_states=True, interpolate_pos_encoding=True).hidden_states[-1]
            expected[f'resized.{size}'] = kept(h)
        if scales_layer is not None:
            expected['scales'] = scaled(model, x, clip, scales_layer)
    save_file(expected, str(HERE / folder / 'expected.safetensors'))


def clip(image, patch, hidden, heads, layers, mlp, **more):
    return CLIPVisionModel(CLIPVisionConfig(image_size=image, patch_size=patch, hidden_size=hidden, num_attention_heads=heads, projection_dim=8,
                                            num_hidden_layers=layers, intermediate_size=mlp, attn_implementation='eager', **more))


def siglip(image, patch, hidden, heads, layers, mlp, **more):
    return SiglipVisionModel(SiglipVisionConfig(image_size=image, patch_size=patch, hidden_size=hidden, num_attention_heads=heads,
                                                num_hidden_layers=layers, intermediate_size=mlp, attn_implementation='eager', **more))


LAYER = 'encoder.layers.1.'
MATRICES = ['embeddings.patch_embedding.weight', 'embeddings.position_embedding.weight', LAYER + 'self_attn.q_proj.weight',
            LAYER + 'self_attn.v_proj.bias', LAYER + 'self_attn.out_proj.weight', LAYER + 'mlp.fc1.weight', LAYER + 'mlp.fc2.bias',
            LAYER + 'layer_norm1.weight']
tower('clip-32', clip(224, 32, 12, 2, 2, 20), 224, 1, prefix='vision_model.')
tower('clip-14', clip(70, 14, 16, 2, 4, 28), 70, 2, other=(98, 56, 336),
      gradients=['embeddings.class_embedding', 'pre_layrnorm.weight', *MATRICES], scales_layer=-2)
tower('siglip-14', siglip(60, 14, 72, 1, 2, 40), 60, 3, other=(84, 384), gradients=['embeddings.patch_embedding.bias', *MATRICES])
tower('siglip-16', siglip(48, 16, 24, 3, 3, 36, hidden_act='gelu', vision_use_head=False), 48, 4, other=(224,), scales_layer=-2)

# The loss as SiglipModel has it, of embeddings that are given instead of computed.
g = torch.Generator().manual_seed(9)
images = torch.randn(5, 7, generator=g, dtype=torch.float64).requires_grad_()
texts = torch.randn(5, 7, generator=g, dtype=torch.float64).requires_grad_()
factor = torch.tensor([1.3], dtype=torch.float64, requires_grad=True)
bias = torch.tensor([-2.1], dtype=torch.float64, requires_grad=True)
part = dict(hidden_size=7, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
both = SiglipModel(SiglipConfig(text_config={**part, 'vocab_size': 9, 'bos_token_id': 1, 'eos_token_id': 2},
                                vision_config={**part, 'image_size': 4, 'patch_size': 4})).double()
both.text_model.forward = lambda **_: type('Out', (), {'pooler_output': texts})()
both.vision_model.forward = lambda **_: type('Out', (), {'pooler_output': images})()
del both.logit_scale, both.logit_bias
both.logit_scale, both.logit_bias = factor, bias
out = both(input_ids=torch.zeros(5, 1, dtype=torch.long), pixel_values=torch.zeros(5, 3, 4, 4), return_loss=True)
out.loss.backward()
save_file({'images': images.detach(), 'texts': texts.detach(), 'scale': factor.detach(), 'bias': bias.detach(), 'loss': out.loss.detach().reshape(1),
           'logits': out.logits_per_image.detach().contiguous(), 'gradient.images': images.grad, 'gradient.texts': texts.grad,
           'gradient.scale': factor.grad, 'gradient.bias': bias.grad}, str(HERE / 'contrastive.safetensors'))
