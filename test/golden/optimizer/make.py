"""Twenty steps of PyTorch's AdamW and SGD: writes steps.json beside this file. Run: python make.py"""
import json
import pathlib

import torch

torch.set_num_threads(1)
torch.manual_seed(7)
SHAPES = [[37], [5, 7], [1]]
STEPS = 20
initial = [torch.randn(s) for s in SHAPES]
gradients = [[torch.randn(s) * 10.0 ** float(torch.randint(-4, 2, ())) for s in SHAPES] for _ in range(STEPS)]
rates = [1e-2 * (0.5 + 0.5 * (i + 1) / STEPS) for i in range(STEPS)]


def run(make, decays):
    parameters = [p.clone().requires_grad_() for p in initial]
    optimizer = make([{"params": [p], "weight_decay": d} for p, d in zip(parameters, decays)])
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rates[step]
        for p, g in zip(parameters, gradients[step]):
            p.grad = g.clone()
        optimizer.step()
    return [p.detach().flatten().tolist() for p in parameters]


cases = {
    "adamw": {"weightDecay": [0.1, 0.0, 0.3], "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8},
    "adamwLargeEpsilon": {"weightDecay": [0.0, 0.0, 0.0], "beta1": 0.8, "beta2": 0.999, "epsilon": 1e-3},
    "sgd": {"weightDecay": [0.01, 0.0, 0.1], "momentum": 0.9, "nesterov": False},
    "sgdNesterov": {"weightDecay": [0.01, 0.0, 0.1], "momentum": 0.9, "nesterov": True},
    "sgdPlain": {"weightDecay": [0.01, 0.0, 0.1], "momentum": 0.0, "nesterov": False},
}
for name, case in cases.items():
    if name.startswith("adamw"):
        make = lambda groups, c=case: torch.optim.AdamW(groups, betas=(c["beta1"], c["beta2"]), eps=c["epsilon"], foreach=False)
    else:
        make = lambda groups, c=case: torch.optim.SGD(groups, momentum=c["momentum"], nesterov=c["nesterov"], foreach=False)
    case["parameters"] = run(make, case["weightDecay"])

result = {
    "torch": torch.__version__,
    "shapes": SHAPES,
    "learningRates": rates,
    "initial": [p.flatten().tolist() for p in initial],
    "gradients": [[g.flatten().tolist() for g in step] for step in gradients],
    "cases": cases,
}
pathlib.Path(__file__).with_name("steps.json").write_text(json.dumps(result) + "\n")
