"""Runs in a process of its own, with ONNX Runtime and without tiesurgeon: one initializer changes.

Reads a JSON spec (see `poke.py`), prints one JSON document.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main(spec: dict[str, Any]) -> dict[str, Any]:
    """Whether the file gives what its model does, with other numbers in one initializer."""
    return {"pokes": [poked(spec["model"], name, file) for name, file in spec["pokes"].items()]}


def poked(path: str, name: str, file: str) -> dict[str, float]:
    """The difference from what was meant, how far the outputs moved, and how large they are."""
    import numpy as np
    import onnxruntime as ort

    with np.load(file) as arrays:
        value, inputs, before, after = (
            [arrays[key] for key in arrays.files if key.partition("_")[0] == what]
            for what in ("value", "input", "before", "after")
        )
    options = ort.SessionOptions()
    options.log_severity_level = 4
    kept = ort.OrtValue.ortvalue_from_numpy(value[0])  # must outlive the session
    options.add_initializer(name, kept)
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    given = session.run(None, dict(zip(names, inputs, strict=True)))
    return {
        "difference": difference(after, given),
        "moved": difference(before, after),
        "scale": max([1.0, *(float(np.abs(y).max(initial=0)) for y in after)]),
    }


def difference(one: list[Any], other: list[Any]) -> float:
    """The largest absolute difference."""
    import numpy as np

    pairs = zip(one, other, strict=True)
    return max(float(np.abs(a.astype("f8") - b.astype("f8")).max(initial=0)) for a, b in pairs)


if __name__ == "__main__":
    sys.modules["tiesurgeon"] = None  # type: ignore[assignment]
    document = main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print("PROOF" + json.dumps(document))
