"""Golden values for test/ops/resize-pixels.test.ts: SHA-256 of what Pillow's Image.resize gives for generated pixels. Run: python3 test/golden/image/make_resize.py (needs pillow)"""
import hashlib
import json
import pathlib
import random

import PIL
from PIL import Image

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def pixels(size, seed):
    """Bytes of a linear congruential generator; of every 8, half are 0 or 255, so that filters overshoot."""
    state = seed
    out = bytearray(size)
    for i in range(size):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        value = state >> 24
        out[i] = (0 if value < 128 else 255) if i % 8 < 4 else value
    return bytes(out)


def resized(width, height, channels, to_width, to_height, filter, seed):
    mode = {1: "L", 3: "RGB"}[channels]
    image = Image.frombytes(mode, (width, height), pixels(width * height * channels, seed))
    return image.resize((to_width, to_height), FILTERS[filter]).tobytes()


if __name__ == "__main__":
    random.seed(5)
    sizes = [(1, 1, 1, 1), (1, 1, 7, 5), (7, 5, 1, 1), (1, 9, 4, 3), (9, 1, 3, 4), (13, 11, 13, 30), (13, 11, 30, 11), (13, 11, 13, 4), (13, 11, 4, 11), (16, 12, 8, 6)]
    sizes += [(64, 48, 22, 22), (37, 53, 224, 224), (320, 213, 56, 56), (300, 2, 3, 2), (2, 300, 2, 3), (255, 257, 254, 258), (5, 5, 100, 3), (200, 150, 199, 149)]
    sizes += [tuple(random.randint(1, 90) for _ in range(4)) for _ in range(30)]
    cases = []
    for seed, (w, h, tw, th) in enumerate(sizes):
        for name in FILTERS:
            channels = 1 if seed % 4 == 3 else 3
            digest = hashlib.sha256(resized(w, h, channels, tw, th, name, seed)).hexdigest()[:16]
            cases.append([w, h, channels, tw, th, name, seed, digest])
    path = pathlib.Path(__file__).with_name("resize.json")
    path.write_text('{"pillow":"%s","cases":[\n%s\n]}\n' % (PIL.__version__, ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)))
    print(path, path.stat().st_size)
