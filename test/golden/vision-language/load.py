"""Loads folders that saveVisionLanguageModel wrote into transformers and compares: python load.py FOLDER=GOLDEN …  (GOLDEN: a folder beside this file)

Fails on missing, unexpected or mis-shaped tensors, and where the logits of a folder differ from those in its golden folder.
"""
import pathlib
import sys

import torch
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration

torch.set_num_threads(1)
for pair in sys.argv[1:]:
    folder, golden = pair.split('=')
    model, report = LlavaForConditionalGeneration.from_pretrained(folder, output_loading_info=True, attn_implementation='eager', dtype=torch.float32)
    # The attention head of a SigLIP tower and its last norm are no part of a LLaVA model.
    unused = ('vision_tower.head.', 'vision_tower.vision_model.head.')
    problems = {key: [n for n in value if not any(u in str(n) for u in unused)] for key, value in report.items() if value}
    problems = {key: value for key, value in problems.items() if value}
    assert not problems, (folder, problems)
    expected = load_file(str(pathlib.Path(__file__).parent / golden / 'expected.safetensors'))
    offsets, starts = expected['offsets'].tolist(), expected['starts'].tolist()
    logits = []
    with torch.no_grad():
        for a, b in zip(offsets, offsets[1:]):
            own = [i for i, start in enumerate(starts) if a <= start < b]
            given = dict(pixel_values=expected['pixels'][own]) if own else {}
            logits.append(model(input_ids=expected['ids'][a:b][None].long(), **given).logits[0])
    difference = (torch.cat(logits) - expected['logits']).abs().max().item()
    assert difference < 1e-4, (folder, difference)
    print(f'{golden}: {type(model).__name__}, logits differ by at most {difference:.1e}')
