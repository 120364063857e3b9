# Python's own float, int, round, repr, capitalize and split, for test/evaluation/python-number.test.ts.
# python3 make.py > python.json
import difflib, json, random
r = random.Random(7)
texts = ["", " ", "1", "-1", "+5", "1_0", "_1", "1_", "1__0", "1._5", "1_.5", "1.5_0", "1e1_0", "1e_1", ".5", "5.", ".", "-.5e-3", "1e400",
  "-1e400", "0x10", "1,000", "inf", "-Infinity", "INFINITY", "nan", "-NaN", "infin", "1 2", "\x1c3\x1f", "\x854", "\ufeff5", "\u0663\u0664",
  "\U0001d7d8\U0001d7e3", "\uff11\uff12.\uff15", "1e", "e5", "--1", "+-1", "1e+5", "1E-05", "\u20031\u2003", "1.2.3", "00012", "-0", "\u00b2", "1f", "0b1", "9007199254740993"]
def fl(t):
    try: return repr(float(t))
    except ValueError: return None
def it(t):
    try: return str(int(t))
    except ValueError: return None
rounds = []
vals = [1.25, 0.125, 2.675, 0.5, 1.5, 2.5, -2.5, -0.5, 1e22, 1e-5, 123456.789, 0.1 + 0.2, 1.005, 5e-324, 1.7976931348623157e308, 0.045, 1234567.5, 3.14159, -3.7, 99.995]
vals += [r.uniform(-1000, 1000) for _ in range(20)] + [round(r.uniform(0, 10), 3) for _ in range(30)]
for v in vals:
    for n in (0, 1, 2, 4, 5): rounds.append([v, n, repr(float(round(v, n)))])
    rounds.append([v, -2, repr(float(round(v, -2)))])
reprs = vals + [1e16, 1e15, 123456789012345680.0, 0.0001, 0.00001, 1e-7, 1.5e-10, 1e100, 2.0, -0.0, 100.0, 1e21, 1e5]
caps = ["", "hELLO wORLD", "\u00dfeta", "\ufb01sh AND", "\u00c9COLE", "1ST Place", "\U0001d400B", "what IS This?", " Lead"]
pairs = [["", ""], ["a", ""], ["abcd", "bcde"], ["the quick fox", "the quack fix"], ["private Thread currentThread;", "private volatile Thread currentThread;"],
  ["héllo wörld", "hello world"], ["多层感知器", "多层的感知机"], ["ab" * 3, "ba" * 3]]
for n in (12, 60, 199, 200, 260):
    for alphabet in ("ab ", "abcdefghij ", "abcdefghijklmnopqrstuvwxyzäöüéè0123456789,.;:-_+*/()[]{}"):
        b = "".join(r.choice(alphabet) for _ in range(n)); a = "".join(c if r.random() < .8 else r.choice(alphabet) for c in b)
        pairs.append([a, b])
print(json.dumps({"ratio": [[a, b, difflib.SequenceMatcher(None, a, b).ratio()] for a, b in pairs], "float": [[t, fl(t)] for t in texts], "int": [[t, it(t)] for t in texts], "round": rounds,
  "str": [[v, repr(v)] for v in reprs], "capitalize": [[c, c.capitalize()] for c in caps],
  "split": [[t, t.split()] for t in ["", "a b", " a\u00a0b\x1cc\u2009d\ufeffe ", "\t\n", "x\x85y\u3000z"]]}, indent=None))
