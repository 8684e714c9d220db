"""Runs in a process of its own, with ONNX Runtime and without tiesurgeon: the proof of a tie.

Reads a JSON spec (see `run.py`), prints one JSON document. It must stay one file that
imports nothing from the package: what it proves is that a stranger can run the result.
"""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

KINDS = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "int64": "int64",
    "int32": "int32",
    "int16": "int16",
    "int8": "int8",
    "uint8": "uint8",
    "bool": "bool",
}
# What the axes that a file leaves open are given, the first that the model runs with.
SIZES = ((2, 7, 5, 3), (1, 1, 1, 1), (2, 2, 2, 2), (1, 16, 16, 16), (1, 512, 64, 64))


SETTINGS = {"optimised": True}


def main(spec: dict[str, Any]) -> dict[str, Any]:
    """Compares the outputs of two models, as they are and with some initializers replaced."""
    SETTINGS["optimised"] = spec["optimised"]
    inputs, error = find_inputs(spec)
    if inputs is None:
        return {"no_inputs": error}
    before = run(spec["original"], inputs)
    after = run(spec["written"], inputs)
    twin = run(spec["original"], inputs, spec["twin"]) if spec["twin"] else before
    found: dict[str, Any] = {
        "difference": difference(twin, after),
        "scale": scale(before),
        "is_half": any(y.dtype.itemsize == 2 and y.dtype.kind == "f" for y in before),
        "moved": difference(before, after),
        "agreement": agreement(before, after),
        "pokes": [],
    }
    for poke in spec["pokes"]:
        both = run(spec["original"], inputs, {**spec["twin"], **poke["all"]})
        ends = [run(spec["original"], inputs, {**spec["twin"], **end}) for end in poke["each"]]
        found["pokes"].append(
            {
                "difference": difference(both, run(spec["written"], inputs, poke["written"])),
                "scale": scale(both),
                "shows": all(difference(both, end) > 1e-3 * scale(both) for end in ends),
            }
        )
    return found


def find_inputs(spec: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """Inputs on which the original runs: the user's, or made up and seeded."""
    import numpy as np

    if spec["examples"]:
        with np.load(spec["examples"]) as arrays:
            return dict(arrays), ""
    session = open_session(spec["original"], {})
    error = "it has inputs of a kind that cannot be made up"
    for sizes, whole in itertools.product(SIZES, ("ids", "ones")):
        try:
            inputs = make_inputs(session.get_inputs(), sizes, spec["rows"], whole)
            session.run(None, inputs)
            return inputs, ""
        except Exception as reason:  # whatever a model says of inputs that it cannot take
            error = " ".join(str(reason).split())[:200]
    return None, error


def make_inputs(wanted: Any, sizes: tuple[int, ...], rows: int, whole: str) -> dict[str, Any]:
    """Numbers of the kinds and shapes that a model asks for."""
    import numpy as np

    rng = np.random.default_rng(0)
    open_axes: dict[str, int] = {}
    made = {}
    for one in wanted:
        shape = []
        for place, dim in enumerate(one.shape):
            if isinstance(dim, int) and dim >= 0:
                shape.append(dim)
            else:
                name = dim if isinstance(dim, str) else f"axis {place}"
                number = len(open_axes) % len(sizes)
                shape.append(open_axes.setdefault(name, sizes[number]))
        kind = KINDS[one.type.removeprefix("tensor(").removesuffix(")")]
        array: Any
        if kind.startswith("float"):
            array = rng.standard_normal(shape)
        elif kind == "bool" or whole == "ones":
            array = np.ones(shape)
        else:
            array = rng.integers(0, min(rows, 100), shape)
        made[one.name] = np.asarray(array).astype(kind)
    return made


def open_session(path: str, replaced: dict[str, str]) -> Any:
    """A session in which some initializers have other numbers."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    if not SETTINGS["optimised"]:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    kept = []
    for name, file in replaced.items():
        value = ort.OrtValue.ortvalue_from_numpy(np.load(file))
        options.add_initializer(name, value)
        kept.append(value)
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.kept_alive = kept
    return session


def run(path: str, inputs: dict[str, Any], replaced: dict[str, str] | None = None) -> list[Any]:
    """All outputs that are arrays of numbers."""
    import numpy as np

    outputs = open_session(path, replaced or {}).run(None, inputs)
    arrays = [np.asarray(y) for output in outputs for y in flatten(output)]
    return [y for y in arrays if y.dtype.kind in "biufc"]


def flatten(output: Any) -> list[Any]:
    """Arrays of sequences and maps."""
    if isinstance(output, dict):
        return [y for key in output for y in flatten(output[key])]
    if isinstance(output, list):
        return [y for one in output for y in flatten(one)]
    return [output]


def difference(one: list[Any], other: list[Any]) -> float:
    """The largest absolute difference; infinite where shapes or places of NaN differ."""
    import numpy as np

    largest = 0.0
    for a, b in zip(one, other, strict=True):
        if a.shape != b.shape:
            return float("inf")
        a, b = a.astype("f8"), b.astype("f8")
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        apart = np.abs(a - b)[~same]
        if apart.size:
            largest = max(largest, float(np.nan_to_num(apart, nan=np.inf).max()))
    return largest


def scale(outputs: list[Any]) -> float:
    """The largest finite number among the outputs."""
    import numpy as np

    finite = [np.abs(y[np.isfinite(y)].astype("f8")) for y in outputs if y.dtype.kind == "f"]
    return max((float(y.max()) for y in finite if y.size), default=0.0)


def agreement(one: list[Any], other: list[Any]) -> float:
    """How often the largest entry along the last axis is the same."""
    import numpy as np

    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a.ndim and a.dtype.kind == "f"]
    same = [np.mean(a.argmax(-1) == b.argmax(-1)) for a, b in pairs if a.size]
    return float(np.mean(same)) if same else 1.0


if __name__ == "__main__":
    sys.modules["tiesurgeon"] = None  # type: ignore[assignment]
    document = main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print("PROOF" + json.dumps(document))
