"""Small image files for test/data/decode-image.test.ts, and SHA-256 of what PIL.Image.open(file).convert('RGB') gives. Run: python3 test/golden/image/make_files.py (needs pillow, numpy)"""
import hashlib
import json
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image

folder = pathlib.Path(__file__).with_name("files")
folder.mkdir(exist_ok=True)
yy, xx = np.mgrid[0:21, 0:33]
base = np.stack([(xx * 7) % 256, (yy * 11) % 256, ((xx + yy) * 5) % 256], -1).astype(np.uint8)
rgb = Image.fromarray(base)
alpha = Image.fromarray(np.concatenate([base, ((xx * yy) % 256)[..., None].astype(np.uint8)], -1))
indexed = rgb.convert("P")

rgb.save(folder / "rgb.jpg", quality=85)
rgb.save(folder / "progressive.jpg", quality=80, progressive=True)
rgb.save(folder / "full-colour.jpg", quality=80, subsampling=0)
rgb.convert("L").save(folder / "grey.jpg", quality=85)
rgb.convert("CMYK").save(folder / "cmyk.jpg", quality=90)
exif = Image.Exif()
exif[0x112] = 6
rgb.save(folder / "turned.jpg", quality=85, exif=exif)
rgb.save(folder / "rgb.png")
alpha.save(folder / "alpha.png")
alpha.convert("LA").save(folder / "grey-alpha.png")
rgb.convert("L").save(folder / "grey.png")
rgb.convert("1").save(folder / "bits.png")
indexed.save(folder / "indexed.png")
indexed.save(folder / "indexed-clear.png", transparency=0)
rgb.save(folder / "lossy.webp", quality=80)
alpha.save(folder / "alpha.webp", lossless=True, exact=True)
indexed.save(folder / "one.gif")
indexed.save(folder / "frames.gif", save_all=True, append_images=[rgb.transpose(Image.Transpose.ROTATE_180).convert("P")])


def png16(colour_type, samples):
    """16 bits a sample, which Pillow does not write in colour."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + samples[y].astype(">u2").tobytes() for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


(folder / "deep.png").write_bytes(png16(2, base.astype(np.uint32) * 257 - (base > 9)))
(folder / "deep-grey.png").write_bytes(png16(0, (xx * 1900 + yy * 37).astype(np.uint32)))

golden = {}
for file in sorted(folder.iterdir()):
    image = Image.open(file).convert("RGB")
    golden[file.name] = [image.width, image.height, hashlib.sha256(image.tobytes()).hexdigest()[:16]]
# Ours takes the upper 8 bits of 16-bit grey; Pillow saturates.
grey = np.repeat((((xx * 1900 + yy * 37) % 65536) >> 8).astype(np.uint8)[..., None], 3, -1)
golden["deep-grey.png"][2] = hashlib.sha256(grey.tobytes()).hexdigest()[:16]
golden["turned.jpg, upright"] = [21, 33, hashlib.sha256(Image.open(folder / "turned.jpg").transpose(Image.Transpose.ROTATE_270).convert("RGB").tobytes()).hexdigest()[:16]]
path = pathlib.Path(__file__).with_name("files.json")
path.write_text("{\n%s\n}\n" % ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in golden.items()))
print(path, sum(f.stat().st_size for f in folder.iterdir()))
