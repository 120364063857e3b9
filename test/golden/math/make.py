"""Golden values for test/ops/math.test.ts: exp, log, tanh and erf to 50 digits, rounded to f64. Arguments are exact in f32, those of the
`wide` lists in f64 only. Run: python3 test/golden/math/make.py (needs mpmath)"""
import json
import pathlib
import random
import struct

from mpmath import erf, exp, log, mp, mpf, tanh

mp.dps = 50
random.seed(11)
single = lambda x: struct.unpack("f", struct.pack("f", x))[0]
spread = lambda lo, hi, n: [lo + (hi - lo) * random.random() for _ in range(n)]
signed_powers = lambda lo, hi, n: [random.choice((-1, 1)) * 2 ** random.uniform(lo, hi) for _ in range(n)]

arguments = {
    "exp": (spread(-87, 88, 80) + signed_powers(-30, 2, 60) + [0.0, 1.0, -1.0, -103.0, -95.5, 88.5], spread(-740, 709, 60) + spread(-2, 2, 40)),
    "log": (
        [2 ** random.uniform(-126, 127) for _ in range(50)] + spread(0.5, 2, 60) + [1 + x for x in signed_powers(-20, -2, 30)] + [1.0, 2.0**-140, 2.0**-149],
        spread(0.6, 1.6, 50) + [2 ** random.uniform(-1022, 1023) for _ in range(40)] + [2.0**-1070],
    ),
    "tanh": (signed_powers(-40, 4, 120) + spread(-1.5, 1.5, 60) + [0.0, 0.625, -0.6249], signed_powers(-30, 5, 60) + spread(-2, 2, 40)),
    "erf": (signed_powers(-40, 3, 120) + spread(-4.5, 4.5, 80) + [0.0, 1.0, 0.99999, -1.0], signed_powers(-30, 3, 60) + spread(-6.5, 6.5, 60)),
}
functions = {"exp": exp, "log": log, "tanh": tanh, "erf": erf}
golden = {}
for name, (narrow, wide) in arguments.items():
    narrow = [single(x) for x in narrow]
    f = functions[name]
    golden[name] = {
        "narrow": [[x, float(f(mpf(x)))] for x in narrow],
        "wide": [[x, float(f(mpf(x)))] for x in wide],
    }
path = pathlib.Path(__file__).with_name("values.json")
path.write_text(json.dumps(golden))
print(path, path.stat().st_size)
