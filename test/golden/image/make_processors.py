"""Golden values for test/data/image-processor.test.ts: what the Pillow-based image processors of transformers make of generated pixels, as SHA-256 of the f32 bytes
[tiles, 3, side, side] and a few of the numbers. Run: python3 test/golden/image/make_processors.py (needs transformers, pillow)"""
import hashlib
import json
import pathlib

import numpy as np
from make_resize import pixels
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

CLASSES = {c.__name__[:-3]: c for c in (CLIPImageProcessorPil, LlavaImageProcessorPil, LlavaNextImageProcessorPil, SiglipImageProcessorPil, ViTImageProcessorPil)}
square = lambda n: {"height": n, "width": n}
grid = [[24, 48], [48, 24], [48, 48], [72, 24], [24, 72]]
half = [0.5, 0.5, 0.5]
CONFIGS = [
    {"image_processor_type": "SiglipImageProcessor"},
    {"image_processor_type": "SiglipImageProcessor", "size": square(24), "resample": 2, "image_mean": half, "image_std": half, "do_resize": True},
    {"image_processor_type": "SiglipImageProcessor", "size": square(24), "do_normalize": False},
    {"image_processor_type": "SiglipImageProcessor", "size": square(24), "do_rescale": False, "image_mean": [120.0, 110.5, 101.25], "image_std": [60.0, 59.5, 57.0]},
    {"image_processor_type": "CLIPImageProcessor"},
    {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 25}, "crop_size": square(24), "resample": 1},
    {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 20}, "crop_size": square(27), "resample": 0},
    {"image_processor_type": "CLIPImageProcessor", "do_resize": False, "crop_size": square(31), "rescale_factor": 0.00784313725490196},
    {"image_processor_type": "LlavaImageProcessor", "do_pad": True, "size": {"shortest_edge": 24}, "crop_size": square(24)},
    {"image_processor_type": "LlavaNextImageProcessor", "size": {"shortest_edge": 24}, "crop_size": square(24), "image_grid_pinpoints": grid, "do_pad": True},
    {"image_processor_type": "LlavaNextImageProcessor", "size": square(24), "do_center_crop": False, "crop_size": square(24), "image_grid_pinpoints": grid, "image_mean": half, "image_std": half},
    {"image_processor_type": "ViTImageProcessor", "size": square(32)},
]
SIZES = [(64, 48), (37, 53), (24, 24), (20, 20), (7, 90), (130, 11), (1, 1), (300, 200)]

cases = []
for number, config in enumerate(CONFIGS):
    kind = CLASSES[config["image_processor_type"]]
    processor = kind(**{k: v for k, v in config.items() if k != "image_processor_type"})
    for seed, (width, height) in enumerate(SIZES):
        image = Image.frombytes("RGB", (width, height), pixels(3 * width * height, seed))
        out = np.asarray(processor(image, return_tensors="np")["pixel_values"])
        out = np.ascontiguousarray(out.reshape(-1, *out.shape[-3:]), dtype=np.float32)
        digest = hashlib.sha256(out.tobytes()).hexdigest()[:16]
        flat = out.ravel()
        some = [float(f"{flat[(j * 1000003) % flat.size]:.9g}") for j in range(6)]
        cases.append({"config": number, "size": [width, height], "seed": seed, "shape": list(out.shape), "sha256": digest, "some": some})

# LLaVA 1.5's square canvas in front of SigLIP, which transformers has no class for.
config = {"image_processor_type": "SiglipImageProcessor", "size": square(24), "image_mean": half, "image_std": half}
processor = SiglipImageProcessorPil(**{k: v for k, v in config.items() if k != "image_processor_type"})
for seed, (width, height) in enumerate(SIZES):
    image = Image.frombytes("RGB", (width, height), pixels(3 * width * height, seed))
    side = max(width, height)
    canvas = Image.new("RGB", (side, side), tuple(int(m * 255) for m in processor.image_mean))
    canvas.paste(image, ((side - width) // 2, (side - height) // 2))
    out = np.ascontiguousarray(processor(canvas, return_tensors="np")["pixel_values"], dtype=np.float32)
    some = [float(f"{out.ravel()[(j * 1000003) % out.size]:.9g}") for j in range(6)]
    cases.append({"config": len(CONFIGS), "mode": "pad", "size": [width, height], "seed": seed, "shape": list(out.shape), "sha256": hashlib.sha256(out.tobytes()).hexdigest()[:16], "some": some})
CONFIGS.append(config)

path = pathlib.Path(__file__).with_name("processors.json")
lines = lambda items: ",\n".join(json.dumps(i, separators=(",", ":")) for i in items)
path.write_text('{"configs":[\n%s\n],"cases":[\n%s\n]}\n' % (lines(CONFIGS), lines(cases)))
print(path, path.stat().st_size)
