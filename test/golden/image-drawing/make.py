"""Outlines and groups of images as Pillow makes them: /work/venv/bin/python test/golden/image-drawing/make.py"""
import json
import pathlib
import random

import PIL
from PIL import Image, ImageDraw

random.seed(6)
WIDTH, HEIGHT = 23, 17


def pixels(draw):
    image = Image.new("RGB", (WIDTH, HEIGHT))
    draw(ImageDraw.Draw(image))
    data = list(image.getdata())
    colours = {c for c in data if c != (0, 0, 0)}
    return [i for i, c in enumerate(data) if c != (0, 0, 0)], sorted(colours)


def number(least, most):
    return round(random.uniform(least, most), 2)


cases = []
for width in [1, 1, 2, 3, 3, 5]:
    for _ in range(6):
        x, y = number(-4, 18), number(-4, 12)
        box = [x, y, round(x + number(0, 14), 2), round(y + number(0, 12), 2)]
        found, colours = pixels(lambda d: d.rectangle(box, outline="red", width=width))
        cases.append({"box": box, "width": width, "pixels": found, "colours": colours})
found, colours = pixels(lambda d: d.rectangle([0.1, 0.2, 0.5, 0.6], outline="red", width=3))
cases.append({"box": [0.1, 0.2, 0.5, 0.6], "width": 3, "pixels": found, "colours": colours})
for corners in [2, 3, 3, 4, 4, 5, 6, 9, 12, 20] * 3:
    points = [number(-3, 26) if i % 2 == 0 else number(-3, 20) for i in range(2 * corners)]
    found, colours = pixels(lambda d: d.polygon(points))
    cases.append({"points": points, "pixels": found, "colours": colours})
HERE = pathlib.Path(__file__).parent
(HERE / "outlines.json").write_text(json.dumps({"pillow": PIL.__version__, "width": WIDTH, "height": HEIGHT, "cases": cases}, separators=(",", ":")) + "\n")


def picture(width, height):
    image = Image.new("RGB", (width, height))
    image.putdata([(x * 9 % 256, y * 7 % 256, (x + y) * 3 % 256) for y in range(height) for x in range(width)])
    return image


def group(sizes, side, name):
    """Without the numbers: a white square of 61 pixels stands where each is."""
    images = [picture(*size) for size in sizes]
    beside = [i.resize((int(i.width * side / i.height), side), Image.Resampling.LANCZOS) for i in images]
    below = [i.resize((side, int(i.height * side / i.width)), Image.Resampling.LANCZOS) for i in images]
    down = sum(i.width for i in beside) > sum(i.height for i in below)
    parts = below if down else beside
    size = (side, sum(i.height for i in parts)) if down else (sum(i.width for i in parts), side)
    made, at = Image.new("RGB", size), 0
    for part in parts:
        part.paste((255, 255, 255), (0, 0, 61, 61))
        made.paste(part, (0, at) if down else (at, 0))
        at += part.height if down else part.width
    made.save(HERE / name, optimize=True)


group([(37, 23), (19, 41)], 120, "beside.png")
group([(37, 23), (90, 31), (64, 20)], 90, "below.png")
