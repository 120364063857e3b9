"""Golden files for conversations: a small tokenizer of Phi-3's kind, LibMoE's label masking, and the grouped orders.

Written from spec/algorithms.md 5.3 alone, without a look at ts/data/conversations. Run: python test/golden/conversations/make.py
"""

import json
import pathlib
import random

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers

here = pathlib.Path(__file__).parent
IGNORE, IMAGE = -100, -200

# --- a tokenizer: spaces are marks, one in front of every stretch of text; special tokens take the blanks after them -----------------

text = """the cat sat on the mat and the dog ran to the cat. what is in the picture? a red mat, a white cat and a dog.
where is the dog now? on the left. how many cats are there? there are two of them, one on the mat and one on the chair.
USER: ASSISTANT: [INST] [/INST] system user assistant You are a helpful assistant. Yes No"""


def make_tokenizer(bos):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=259 + 200,
        special_tokens=["<unk>", "<s>", "</s>", *bytes_],
        initial_alphabet=[],
        show_progress=False,
    )
    # Words are trained apart; encoding then needs no pre-tokenizer.
    words = ["\u2581" + w for line in text.split("\n") for w in line.split()]
    plain = Tokenizer(models.BPE(unk_token="<unk>"))
    plain.train_from_iterator(words, trainer)
    state = json.loads(plain.to_str())
    vocab, merges = state["model"]["vocab"], [tuple(m) for m in state["model"]["merges"]]
    tokenizer.model = models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ["<unk>", "<s>", "</s>"]])
    tokenizer.add_special_tokens(
        [
            AddedToken(t, normalized=False, special=True, rstrip=True)
            for t in ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
        )
    return tokenizer


# --- LibMoE's preprocessing ---------------------------------------------------------------------------------------------------------


def with_images_in_front(value):
    if "<image>" not in value:
        return value
    return ("<image>\n" + value.replace("<image>", "").strip()).strip()


def prompt_of(turns, template):
    if template == "plain":
        return "<image>" + turns[1] + "\n"
    out = "<|system|>\nYou are a helpful assistant.<|end|>\n" if template == "phi35" else ""
    for i, value in enumerate(turns):
        out += ("<|user|>" if i % 2 == 0 else "<|assistant|>") + "\n" + value + "<|end|>\n"
    return out


def tokens(tokenizer, prompt):
    """Split at the images, encode the pieces, join with the image id; only the first BOS stays."""
    out = []
    for i, piece in enumerate(prompt.split("<image>")):
        ids = tokenizer.encode(piece).ids
        if i > 0:
            out.append(IMAGE)
            if ids and ids[0] == 1:
                ids = ids[1:]
        out.extend(ids)
    return out


def masked(tokenizer, turns, template, context):
    turns = [with_images_in_front(turn) for turn in turns]
    prompt = prompt_of(turns, template)
    ids = tokens(tokenizer, prompt)
    if "<image>" not in prompt:
        ids = ids[:context]
    labels = list(ids)
    if template == "plain":
        count = len(tokens(tokenizer, "<image>"))
        labels[:count] = [IGNORE] * count
        return prompt, ids, labels
    labels[0] = IGNORE
    place = 1
    rounds = []
    # A round is what stands before the terminator of its answer.
    pieces = prompt.split("<|end|>\n")
    size = 3 if template == "phi35" else 2
    rounds.append("<|end|>\n".join(pieces[:size]))
    for i in range(size, len(pieces), 2):
        rounds.append("<|end|>\n".join(pieces[i : i + 2]))
    for r, one in enumerate(rounds):
        if one == "":
            break
        instruction = one[: one.index("<|assistant|>\n") + len("<|assistant|>\n")]
        instruction_length = len(tokens(tokenizer, instruction)) - 1
        round_length = len(tokens(tokenizer, one))
        if template == "phi3" and r > 0:
            instruction_length -= 1
            round_length -= 1
        for k in range(place, min(len(labels), place + instruction_length)):
            labels[k] = IGNORE
        place += round_length
    for k in range(place, len(labels)):
        labels[k] = IGNORE
    if place < context and place != sum(i != 0 for i in ids):
        labels = [IGNORE] * len(ids)
    return prompt, ids, [IGNORE if i == IMAGE else label for i, label in zip(ids, labels)]


def label_cases(tokenizers):
    conversations = [
        ["<image>\nwhat is in the picture?", "a cat"],
        ["what is in the picture?\n<image>", "a red mat, a white cat"],
        ["where is the dog?", "on the left"],
        ["<image>where is <image> the dog?", "Yes"],
        ["<image>\nwhat is it?", "a dog", "where is it now?", "on the mat."],
        ["how many cats?", "two", "and dogs?", "one", "are there mats?", "Yes"],
        ["what?  ", "  a\ncat  "],
        ["\u6f22 and \U0001f408?", "No \u00e9"],
        ["the cat sat on the mat and the dog ran to the cat", "Yes, and there are two of them, one on the mat"],
    ]
    out = []
    for name, tokenizer in tokenizers.items():
        for template in ["phi35", "phi3", "plain"]:
            for turns in conversations:
                if template == "plain" and (len(turns) != 2 or "<image>" not in turns[0]):
                    continue
                for context in [2048, 20]:
                    prompt, ids, labels = masked(tokenizer, turns, template, context)
                    out.append(
                        dict(
                            tokenizer=name,
                            template=template,
                            context=context,
                            turns=turns,
                            ids=ids,
                            learned=[k for k, label in enumerate(labels) if label != IGNORE],
                        )
                    )
    return out


# --- the grouped orders -------------------------------------------------------------------------------------------------------------


def deal(samples, length_of, world):
    if len(samples) % world != 0:
        return [samples[r::world] for r in range(world)]
    quota = len(samples) // world
    chunks, sums = [[] for _ in range(world)], [0] * world
    for sample in samples:
        open_ = [r for r in range(world) if len(chunks[r]) < quota]
        r = min(open_, key=lambda r: sums[r])
        chunks[r].append(sample)
        sums[r] += length_of(sample)
    return chunks


def by_length(lengths, megabatch, world, permutation):
    out = []
    for i in range(0, len(permutation), megabatch):
        part = sorted(permutation[i : i + megabatch], key=lambda k: lengths[k], reverse=True)
        for chunk in deal(part, lambda k: lengths[k], world):
            out += chunk
    return out


def by_modality(signed, megabatch, world, draws):
    kinds = [[i for i, s in enumerate(signed) if s > 0], [i for i, s in enumerate(signed) if s < 0]]
    if not kinds[0] or not kinds[1]:
        return by_length([abs(s) for s in signed], megabatch, world, draws[""])
    whole, rest = [], []
    for kind, name in zip(kinds, ["images", "text"]):
        order = [kind[k] for k in by_length([abs(signed[i]) for i in kind], megabatch, world, draws[name])]
        parts = [order[i : i + megabatch] for i in range(0, len(order), megabatch)]
        whole += parts[:-1]
        rest += parts[-1]
    out = []
    for k in draws["megabatches"](len(whole)):
        out += whole[k]
    return out + sorted(rest)


def order_cases():
    rng = random.Random(7)
    out = []
    for count, megabatch, world, with_images in [(37, 8, 4, 0.6), (64, 8, 2, 0.5), (30, 6, 3, 1.0), (25, 10, 1, 0.3), (41, 12, 4, 0.0)]:
        signed = [rng.randint(1, 12) * (1 if rng.random() < with_images else -1) for _ in range(count)]
        sizes = {"": count, "images": sum(s > 0 for s in signed), "text": sum(s < 0 for s in signed)}
        draws = {name: rng.sample(range(size), size) for name, size in sizes.items()}

        def last(size):
            draws["megabatches"] = rng.sample(range(size), size)
            return draws["megabatches"]

        lengths = by_length([abs(s) for s in signed], megabatch, world, draws[""])
        modality = by_modality(signed, megabatch, world, {**draws, "megabatches": last})
        out.append(dict(words=signed, batchSamples=megabatch, groups=world, draws=draws, length=lengths, modality=modality))
    return out


if __name__ == "__main__":
    made = {"bos": make_tokenizer(True), "none": make_tokenizer(False)}
    state = json.loads(made["bos"].to_str())
    (here / "tokenizer.json").write_text(json.dumps(state, ensure_ascii=False, separators=(",", ":")) + "\n")
    golden = dict(labels=label_cases(made), orders=order_cases())
    (here / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n")
