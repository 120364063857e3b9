"""Pillow's side of the benches of 8-bit images: one thread, as a worker of a PyTorch DataLoader has it."""
import numpy as np
from inputs import mixed
from PIL import Image
from protocol import Work, serve


def resize(request):
    height, width, channels = request["shape"]
    data = (mixed(height * width * channels, request["seed"]) & 255).astype(np.uint8)
    image = Image.fromarray(data.reshape(height, width, channels))
    size, resample = tuple(request["to"]), Image.Resampling[request["filter"].upper()]
    run = lambda: image.resize(size, resample)
    return Work(run, lambda: {"pixels": [float(x) for x in np.asarray(run()).ravel()[: 4096]]})


def load(request):
    """Files to normalised f32 pixels, channel first."""
    side = request["side"]

    def run():
        for path in request["paths"]:
            image = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
            pixels = np.asarray(image).astype(np.float64) * (1 / 255)
            np.ascontiguousarray(((pixels.astype(np.float32) - np.float32(0.5)) / np.float32(0.5)).transpose(2, 0, 1))

    return Work(run)


serve(lambda request: {"resize": resize, "load": load}[request["what"]](request))
