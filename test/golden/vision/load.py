"""Loads folders that saveVisionTower wrote into transformers and compares: python load.py FOLDER=GOLDEN …  (GOLDEN: a folder beside this file)

A folder holds the tower of GOLDEN, with its pool or without, whole or with fewer layers (selectLayer). Fails on missing, unexpected or mis-shaped tensors, and
where the last hidden state, or with all layers and a pool the pooled output, differs from those in the golden folder.
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import load_file
from transformers import CLIPVisionModel, SiglipVisionModel

from pixels import STEP, pixels

torch.set_num_threads(1)
for pair in sys.argv[1:]:
    folder, golden = pair.split('=')
    config = json.loads((pathlib.Path(folder) / 'config.json').read_text())
    family = CLIPVisionModel if config['architectures'] == ['CLIPVisionModel'] else SiglipVisionModel
    model, report = family.from_pretrained(folder, output_loading_info=True, attn_implementation='eager', dtype=torch.float32)
    problems = {key: value for key, value in report.items() if value}
    assert not problems, (folder, problems)
    expected = load_file(str(pathlib.Path(__file__).parent / golden / 'expected.safetensors'))
    with torch.no_grad():
        out = model.eval()(pixels(2, model.config.image_size), output_hidden_states=True)
    wanted = expected[f'hidden.{model.config.num_hidden_layers}']
    worst = ((out.hidden_states[-1][:, ::STEP] - wanted).abs().max() / wanted.abs().max()).item()
    if config['libmoe']['vision'].get('pool'):
        worst = max(worst, ((out.pooler_output - expected['pooled']).abs().max() / expected['pooled'].abs().max()).item())
    assert worst < 1e-5, (folder, worst)
    print(f'{golden}: {family.__name__} of {model.config.num_hidden_layers} layers, differs by at most {worst:.1e} of the largest value')
