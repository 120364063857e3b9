"""Prompts as lm-eval 0.4.13 assembles them: samplers, delimiters, gen_prefix, chat turns.

/work/venv/bin/python test/golden/few-shot/make.py > test/golden/few-shot/few-shot.json
"""
import json
import logging
from functools import partial

import sys
from unittest.mock import MagicMock

import jinja2

# lm-eval imports much for metrics and downloads of which nothing is used here.
while True:
    try:
        from lm_eval.api.task import ConfigurableTask

        break
    except ModuleNotFoundError as error:
        sys.modules[error.name] = MagicMock()
        for loaded in [name for name in sys.modules if name.startswith("lm_eval")]:
            del sys.modules[loaded]

logging.disable(logging.WARNING)
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def chat(messages, add_generation_prompt=True):
    prefix = ""
    if not add_generation_prompt:
        prefix = messages[-1]["content"]
        messages = messages[:-1]
    return jinja2.Template(TEMPLATE).render(messages=messages, add_generation_prompt=True) + prefix


def rows(kind, count):
    return [
        {"q": f"{kind} question {i}", "c": ["red", "green", f"blue {i}"], "g": i % 3, "a": f"answer {i}"}
        for i in range(count)
    ]


class Rows(list):
    features = {"q": 0, "c": 0, "g": 0, "a": 0}


SPLITS = {"train": Rows(rows("train", 9)), "test": Rows(rows("test", 6))}
CHOICE = dict(output_type="multiple_choice", doc_to_text="q", doc_to_choice="c", doc_to_target="g")
TEXT = dict(output_type="generate_until", doc_to_text="Q: {{q}}\nA:", doc_to_target="a")
INPUTS = dict(output_type="multiple_choice", doc_to_text="g", doc_to_choice="c", doc_to_target="a")
CASES = [
    ("drawn from training rows", dict(**CHOICE, training_split="train", num_fewshot=3), {}),
    ("drawn from the evaluated rows", dict(**CHOICE, fewshot_split="test", num_fewshot=2), {}),
    ("the first rows", dict(**TEXT, fewshot_split="train", num_fewshot=2, fewshot_config=dict(sampler="first_n")), {}),
    ("written out", dict(**TEXT, num_fewshot=1, fewshot_config=dict(samples=rows("made-up", 2), sampler="first_n")), {}),
    (
        "delimiters and description",
        dict(**TEXT, fewshot_split="train", num_fewshot=2, description="Answer.", target_delimiter=" => ", fewshot_delimiter="\n---\n"),
        {"system": "Be brief."},
    ),
    ("what answers begin with", dict(**TEXT, fewshot_split="train", num_fewshot=1, gen_prefix="It is"), {}),
    ("several contexts", dict(**INPUTS, training_split="train", num_fewshot=2), {}),
    ("chat, one question", dict(**TEXT, fewshot_split="train", num_fewshot=2, description="Answer."), {"chat": "single"}),
    ("chat, turns", dict(**TEXT, fewshot_split="train", num_fewshot=2), {"chat": "multi", "system": "Be brief."}),
    ("chat, begun answer", dict(**TEXT, fewshot_split="train", num_fewshot=1, gen_prefix="It is"), {"chat": "multi"}),
    ("chat, begun answer, one question", dict(**TEXT, fewshot_split="train", num_fewshot=1, gen_prefix="It is"), {"chat": "single"}),
    ("chat, no examples", dict(**CHOICE), {"chat": "single"}),
]

out = []
for name, config, how in CASES:
    task = ConfigurableTask(
        config={"task": "toy", "test_split": "test", "custom_dataset": lambda **_: SPLITS, "metric_list": [{"metric": "acc"}] if config["output_type"] == "multiple_choice" else [{"metric": "exact_match"}], **config}
    )
    task.set_fewshot_seed(1234)
    contexts = []
    for doc in SPLITS["test"]:
        contexts.append(
            task.fewshot_context(
                doc,
                num_fewshot=config.get("num_fewshot", 0),
                system_instruction=how.get("system"),
                apply_chat_template="chat" in how,
                fewshot_as_multiturn=how.get("chat") == "multi",
                chat_template=chat if "chat" in how else None,
                gen_prefix=config.get("gen_prefix"),
            )
        )
    out.append({"name": name, "task": config, "how": how, "contexts": contexts})
print(json.dumps({"template": TEMPLATE, "splits": SPLITS, "cases": out}, indent=1))
