"""Runs in a process of its own, with ONNX Runtime and without tiesurgeon: calls a model.

Reads a JSON spec (see `running.py`), prints one JSON document.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main(spec: dict[str, Any]) -> dict[str, Any]:
    """Writes the outputs that are numbers, in order; says their names and those left out."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(spec["model"], options, providers=["CPUExecutionProvider"])
        with np.load(spec["inputs"]) as arrays:
            given = session.run(None, dict(arrays))
    except Exception as reason:  # whatever a model says of inputs that it cannot take
        return {"failed": " ".join(str(reason).split())[:300]}
    pairs = [
        (one.name, np.asarray(array))
        for one, array in zip(session.get_outputs(), given, strict=True)
        if not isinstance(array, (list, dict))
    ]
    numbers = {name: array for name, array in pairs if array.dtype.kind in "biufc"}
    np.savez(spec["outputs"], *numbers.values())
    skipped = [one.name for one in session.get_outputs() if one.name not in numbers]
    return {"names": list(numbers), "skipped": skipped}


if __name__ == "__main__":
    sys.modules["tiesurgeon"] = None  # type: ignore[assignment]
    document = main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print("PROOF" + json.dumps(document))
