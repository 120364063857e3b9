"""Loads folders that saveModel wrote into transformers and compares: python load.py FOLDER=GOLDEN …  (GOLDEN: a folder beside this file)

Fails on missing, unexpected or mis-shaped tensors, and where the logits of a folder differ from those in its golden folder.
"""
import pathlib
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
for pair in sys.argv[1:]:
    folder, golden = pair.split('=')
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, attn_implementation='eager', dtype=torch.float32)
    problems = {key: value for key, value in report.items() if value}
    assert not problems, (folder, problems)
    expected = load_file(str(pathlib.Path(__file__).parent / golden / 'expected.safetensors'))
    offsets = expected['offsets'].tolist()
    with torch.no_grad():
        logits = torch.cat([model(expected['ids'][a:b][None].long()).logits[0] for a, b in zip(offsets, offsets[1:])])
    difference = (logits - expected['logits']).abs().max().item()
    assert difference < 1e-4, (folder, difference)
    print(f'{golden}: {type(model).__name__}, logits differ by at most {difference:.1e}')
