"""Small LlavaForConditionalGeneration checkpoints with random weights, and what PyTorch computes with them: python make.py

Each folder: config.json and model.safetensors as transformers writes them, and expected.safetensors: ids of several sequences end to end with their
offsets, pixels [images, 3, side, side], starts (first row of each image in ids), targets (next token, -1 none; none before or in images), logits,
image features after the projector, loss (mean over targets) and some of its gradients.
"""
import pathlib

import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, Phi3Config, SiglipVisionConfig

torch.set_num_threads(1)
here = pathlib.Path(__file__).parent
image = 57
small = dict(hidden_size=32, intermediate_size=40, num_attention_heads=4)
text = dict(vocab_size=60, num_attention_heads=4, num_hidden_layers=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0)
cases = {
    'siglip-llama': LlavaConfig(
        vision_config=SiglipVisionConfig(**small, num_hidden_layers=2, image_size=42, patch_size=14),
        text_config=LlamaConfig(**text, hidden_size=40, intermediate_size=48, num_key_value_heads=2),
        image_token_index=image, image_seq_length=9, vision_feature_layer=-1, vision_feature_select_strategy='full'),
    'clip-phi3': LlavaConfig(
        vision_config=CLIPVisionConfig(**small, num_hidden_layers=3, image_size=32, patch_size=8),
        text_config=Phi3Config(**text, hidden_size=48, intermediate_size=64, original_max_position_embeddings=128),
        image_token_index=image, image_seq_length=16, vision_feature_layer=-2, vision_feature_select_strategy='default'),
}
for number, (name, config) in enumerate(cases.items()):
    torch.manual_seed(number)
    config._attn_implementation = 'eager'
    model = LlavaForConditionalGeneration(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.25 if parameter.dim() > 1 else 0.1))
    rows = config.image_seq_length
    side = config.vision_config.image_size
    draw = lambda n: torch.randint(3, 50, (n,)).tolist()
    # No image, one in the middle, two (one of them first, both side by side with a text between), one last.
    sequences = [draw(7), draw(3) + [image] * rows + draw(4), [image] * rows + draw(2) + [image] * rows + draw(3), draw(2) + [image] * rows]
    pixels = torch.rand(4, 3, side, side) * 2 - 1
    logits, features, losses, count, used, starts, begin, targets = [], [], [], 0, 0, [], 0, []
    for ids in sequences:
        at = [i for i, token in enumerate(ids) if token == image][::rows]
        own = pixels[used:used + len(at)]
        used += len(at)
        given = dict(pixel_values=own) if at else {}
        out = model(input_ids=torch.tensor([ids]), **given)
        logits.append(out.logits[0])
        if at:
            features.append(out.image_hidden_states.reshape(-1, out.image_hidden_states.shape[-1]))
        starts += [begin + i for i in at]
        begin += len(ids)
        following = [token if token != image else -1 for token in ids[1:]] + [-1]
        targets += following
        wanted = torch.tensor(following)
        losses.append(torch.nn.functional.cross_entropy(out.logits[0], wanted, ignore_index=-1, reduction='sum'))
        count += (wanted >= 0).sum().item()
    loss = sum(losses) / count
    loss.backward()
    folder = here / name
    model.save_pretrained(folder)
    grads = {k: p.grad for k, p in model.named_parameters()}
    kept = {
        'vision.patchEmbedding.weight': grads['model.vision_tower.embeddings.patch_embedding.weight'],
        'projector.layers.0.weight': grads['model.multi_modal_projector.linear_1.weight'],
        'projector.layers.1.bias': grads['model.multi_modal_projector.linear_2.bias'],
        'language.embedding.weight': grads['model.language_model.embed_tokens.weight'],
    }
    offsets = torch.tensor([0] + [len(s) for s in sequences]).cumsum(0)
    save_file({
        'ids': torch.tensor(sum(sequences, []), dtype=torch.int32), 'offsets': offsets.int(), 'targets': torch.tensor(targets, dtype=torch.int32),
        'starts': torch.tensor(starts, dtype=torch.int32), 'pixels': pixels, 'logits': torch.cat(logits).detach().contiguous(),
        'features': torch.cat(features).detach().contiguous(), 'loss': loss.detach().reshape(1),
        **{f'gradient.{k}': v.contiguous() for k, v in kept.items()},
    }, folder / 'expected.safetensors')
    print(name, tuple(torch.cat(logits).shape), f'{loss.item():.4f}')
