"""A training step without its optimizer, or a forward pass, of LlavaForConditionalGeneration of transformers: the model of bench/vision-language.bench.ts,
parameter for parameter. What its modules compute and nothing needs is left out where they let themselves be told: the pooling head of the tower."""
import torch
from inputs import sampled, tensor
from protocol import Work, args, serve
from transformers import AutoConfig, LlavaForConditionalGeneration


def config_of(json):
    json = dict(json)
    json["vision_config"] = {**json["vision_config"], "vision_use_head": False}
    return AutoConfig.for_model(json.pop("model_type"), **json)


def make(r):
    config = config_of(r["config"])
    with torch.device("meta"):
        model = LlavaForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    model.to_empty(device="cpu")
    # Rotary frequencies are buffers that follow from the configuration.
    text = model.model.language_model
    text.rotary_emb = type(text.rotary_emb)(config.text_config)
    tower = model.model.vision_tower
    embeddings = getattr(tower, "vision_model", tower).embeddings
    embeddings.position_ids = torch.arange(embeddings.num_positions).expand((1, -1))
    theirs = dict(model.named_parameters())
    places, unset = {}, set(theirs)
    for spec in r["parameters"]:
        value = torch.ones(spec["shape"]) if spec.get("ones") else tensor(spec, "f32")
        flat, at, places[spec["name"]] = value.reshape(-1), 0, []
        for part in spec["parts"]:
            name = part["name"]
            if name not in theirs:
                name = name.replace("model.vision_tower.", "model.vision_tower.vision_model.")
            p = theirs[name]
            with torch.no_grad():
                p.copy_(flat[at:at + p.numel()].view(p.shape))
            at += p.numel()
            places[spec["name"]].append(p)
            unset.discard(name)
        assert at == flat.numel(), spec["name"]
    # The last norm of the tower comes after the features; it is computed, and learns nothing.
    assert all("post_layernorm" in name for name in unset), unset
    for name in unset:
        torch.nn.init.ones_(theirs[name].data)
    train = r["train"]
    model.train(train)
    ids = torch.tensor(r["ids"]).view(r["images"], -1)
    labels = torch.tensor(r["labels"]).view(r["images"], -1)
    labels[labels == -1] = -100
    pixels = tensor(r["pixels"], "f32")

    def loss():
        return model(input_ids=ids, pixel_values=pixels, labels=labels, use_cache=False).loss

    def clear():
        model.zero_grad(set_to_none=True)

    def step():
        if not train:
            with torch.no_grad():
                return loss().item()
        value = loss()
        value.backward()
        return value.item()

    def run():
        step()
        clear()

    def results():
        found = {"loss": [step()]}
        if train:
            for name, parts in places.items():
                if name.endswith("key.bias"):  # nothing but rounding on both sides
                    continue
                found["d " + name] = sampled(torch.cat([p.grad.reshape(-1) for p in parts]))
        clear()
        return found

    return Work(run, results, args.mode)


serve(make)
