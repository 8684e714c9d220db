"""A tied ONNX file against the untied one in ONNX Runtime, and what other optimisers make of both.

Latency is CPU time on one thread, the models taking turns, so that a busy machine hits all alike:
the median, and the median of the ratios of each turn. Memory and load time are those of fresh
processes. onnxslim, onnxsim and onnx-ir are asked if they are installed.
"""

import importlib.util
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Literal

import numpy as np
import onnxruntime as ort
from measure import PYTHON, cost
from onnx_models import write

from tiesurgeon.rooms.onnx.projection import HEADS
from tiesurgeon.rooms.onnx.read import read

ROWS = 32_000  # with a width of 512: 66 MB a matrix
ROUNDS = 41
SHAPES = ((1, 1), (1, 64), (8, 32))
PEERS = {
    "ONNX Runtime, all": (
        "import onnxruntime as ort; o = ort.SessionOptions(); o.optimized_model_filepath = b;"
        "o.log_severity_level = 4; ort.InferenceSession(a, o)"
    ),
    "onnxslim": "import onnxslim, onnx; onnx.save(onnxslim.slim(a), b)",
    "onnxsim": "import onnxsim, onnx; onnx.save(onnxsim.simplify(a)[0], b)",
    "onnx-ir": (
        "import onnx_ir as ir; from onnx_ir.passes.common import DeduplicateInitializersPass as D;"
        "m = ir.load(a); D(size_limit=1 << 40)(m); ir.save(m, b)"
    ),
}
MODULES = {"onnxslim": "onnxslim", "onnxsim": "onnxsim", "onnx-ir": "onnx_ir"}
SESSION = """
import sys, numpy as np, onnxruntime as ort
def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
o = ort.SessionOptions(); o.log_severity_level = 4
before = resident()
session = ort.InferenceSession(sys.argv[1], o, providers=["CPUExecutionProvider"])
session.run(None, {"ids": np.zeros((1, 4), np.int64)})
print((resident() - before) / 1000)
"""


def tied(model: Path, head: Literal["gemm", "activation"]) -> Path:
    document = read(model).document
    document.head = head
    document.tie("embed/data", "head/B", (1, 0))
    path = model.with_name(f"{head}.onnx")
    document.write(path, {})
    return path


def latency(paths: list[Path], shape: tuple[int, int]) -> list[tuple[float, float]]:
    """For each model the median milliseconds, and the median ratio to the first one."""
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    sessions = [ort.InferenceSession(str(path), options) for path in paths]
    ids = np.random.default_rng(0).integers(0, ROWS, shape)
    turns = []
    for _ in range(ROUNDS + 2):
        times = []
        for session in sessions:
            started = process_time()
            session.run(None, {"ids": ids})
            times.append(1000 * (process_time() - started))
        turns.append(times)
    turns = turns[2:]  # the first ones fill caches
    return [
        (
            statistics.median(one[at] for one in turns),
            statistics.median(o[at] / o[0] for o in turns),
        )
        for at in range(len(paths))
    ]


def memory(path: Path) -> float:
    """Megabytes that a session holds after a run."""
    command = [*PYTHON, SESSION, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        untied = write(folder / "untied.onnx", ROWS, outside=False)
        paths = [untied, *(tied(untied, head) for head in HEADS)]
        titles = ["untied", *(f"tied, {head}" for head in HEADS)]
        print(f"embedding and projection of {ROWS:,} x 512, float32")
        for title, path in zip(titles, paths, strict=True):
            size = path.stat().st_size / 1e6
            loading = cost([*PYTHON, SESSION, str(path)]).wall
            print(f"{title:20} {size:5.0f} MB   in memory {memory(path):5.0f} MB   {loading:.2f} s")
        for shape in SHAPES:
            times = latency(paths, shape)
            words = "   ".join(
                f"{title} {time:7.2f} ms ({ratio:.2f})"
                for title, (time, ratio) in zip(titles, times, strict=True)
            )
            print(f"batch, time {shape!s:8} {words}")
        for peer, code in PEERS.items():
            if importlib.util.find_spec(MODULES.get(peer, "onnxruntime")) is None:
                print(f"{peer:20} is not installed")
                continue
            sizes = []
            for path in paths:
                made = folder / "made.onnx"
                command = [
                    sys.executable,
                    "-W",
                    "ignore",
                    "-c",
                    f"import sys; a, b = sys.argv[1:]; {code}",
                ]
                subprocess.run([*command, str(path), str(made)], check=True, capture_output=True)
                sizes.append(f"{made.stat().st_size / 1e6:5.0f} MB")
                made.unlink()
            print(f"{peer:20} makes {', '.join(sizes)} of them")


if __name__ == "__main__":
    main()
