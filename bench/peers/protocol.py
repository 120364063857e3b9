"""The peer's side of bench/peer.ts: JSON lines on stdin and stdout, one case at a time.

A script defines make(request) -> Work, or a callable where there is nothing to compare, and calls serve(make).
"""
import argparse
import gc
import json
import os
import sys
import time

parser = argparse.ArgumentParser()
# On the CPU a setting of PyTorch; on a GPU one of the ways of the script, "torch" where there is one only. The ways may be tried on the CPU too.
parser.add_argument("--mode", default="default")
parser.add_argument("--device", default="cpu")
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()

# "tuned": glibc keeps freed memory, so that large temporaries do not fault in their pages at every call. Read at start only, hence the
# second start.
TUNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 28), "MALLOC_ARENA_MAX": "1"}
if args.mode == "tuned" and os.environ.get("LIBMOE_PEER_TUNED") != "1":
    os.execve(sys.executable, [sys.executable] + sys.argv, {**os.environ, **TUNED, "LIBMOE_PEER_TUNED": "1"})

import torch  # noqa: E402

torch.set_num_threads(args.threads)
ON_GPU = args.device != "cpu"
if ON_GPU:
    # Inputs are made on the host and copied by inputs.tensor; what the methods make is made on the GPU.
    torch.set_default_device(args.device)
elif args.mode in ("medium", "tuned"):
    torch.set_float32_matmul_precision("medium")


def _status(key):
    for line in open("/proc/self/status"):
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _resident(run, before):
    """As bench/resident-memory.ts."""
    gc.collect()
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")
    run()
    return _status("VmHWM") - _status("RssFile") - before


class Work:
    """run() is what is timed; results() -> {name: [numbers]}, thinned by inputs.sampled; method: which way of several was the fastest;
    forward() -> outputs with a graph, and parameters, whose storage is not counted in what the graph keeps."""

    def __init__(self, run, results=None, method=None, forward=None, parameters=()):
        self.run, self.results, self.method, self.forward, self.parameters = run, results, method, forward, parameters


def saved_bytes(forward, parameters):
    """Bytes of the distinct storages that the graph of forward() keeps for backward, those of parameters left out."""
    known = {p.untyped_storage().data_ptr() for p in parameters}
    kept = {}

    def pack(t):
        storage = t.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = (storage.nbytes(), t)  # the tensor is held, so that its address is not used again
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        outputs = forward()
    total = sum(size for size, _ in kept.values())
    del outputs
    return total


def seconds(run, count):
    """Time of `count` calls: the GPU's own between two events, as bench/device-time.ts has it."""
    if not ON_GPU:
        start = time.perf_counter()
        for _ in range(count):
            run()
        return time.perf_counter() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(count):
        run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def serve(make):
    work = None
    for line in sys.stdin:
        message = json.loads(line)
        try:
            if "forget" in message:
                work = made = None
                gc.collect()
                if ON_GPU:
                    torch.cuda.empty_cache()
                answer = {}
            elif "setup" in message:
                before = _status("RssAnon")
                made = make(message["setup"])
                work = made if isinstance(made, Work) else Work(made)
                answer = {"ready": True, "torch": torch.__version__, "capability": torch.cuda.get_device_name() if ON_GPU else torch.backends.cpu.get_cpu_capability()}
                if work.method:
                    answer["method"] = work.method
            elif "results" in message:
                answer = {"results": work.results() if work.results else None}
            elif "saved" in message:
                answer = {"bytes": saved_bytes(work.forward, work.parameters) if work.forward else None}
            elif "memory" in message:
                answer = {"bytes": _resident(work.run, before)}
            else:
                answer = {"seconds": seconds(work.run, message["run"])}
        except Exception as error:  # the runner prints it beside the case
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
