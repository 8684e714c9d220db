"""Runs in a process of its own, with PyTorch and without tiesurgeon: a model becomes ONNX.

Reads a JSON spec (see `export.py`), prints one JSON document.
"""

import importlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any


def main(spec: dict[str, Any]) -> dict[str, Any]:
    """Loads what the spec names, exports it, and says how its inputs and outputs are called."""
    import numpy as np
    import torch

    sys.path.insert(0, str(Path(__file__).parent))
    recurrent = importlib.import_module("recurrent")
    arrays = np.load(spec["inputs"])
    inputs = tuple(torch.from_numpy(arrays[name]) for name in spec["order"])
    model = load(spec)
    pokes = poked(spec, model, inputs)
    if spec["kind"] == "folder":
        try:
            recurrent.make_opaque(importlib.import_module("model"), model)
        except ValueError as reason:  # ONNX's operators cannot say it
            return {"refused": str(reason)}
    program = torch.onnx.export(
        model,
        inputs,
        dynamo=True,
        optimize=False,  # or the names of parameters are lost
        verbose=False,
        opset_version=spec["opset"],
        input_names=spec["input_names"] or None,
        output_names=spec["output_names"] or None,
        dynamic_shapes=dynamic_shapes(spec),
        custom_translation_table=recurrent.TRANSLATIONS,
    )
    assert program is not None
    importlib.import_module("tidying").tidy(program.model, spec["names"])
    program.save(spec["output"], external_data=spec["external_data"])
    return {"pokes": pokes, "opset": program.model.opset_imports[""]}


def load(spec: dict[str, Any]) -> Any:
    """The module of a folder, in eval mode; or a program as it is."""
    import torch

    if spec["kind"] == "torch-export":
        return torch.export.load(spec["path"])
    sys.path.insert(0, spec["path"])
    return importlib.import_module("model").load()


def poked(spec: dict[str, Any], model: Any, inputs: tuple[Any, ...]) -> dict[str, str]:
    """Files of what changed parameters lead to; a program is called on its own examples."""
    if not spec["poke"]:
        return {}
    module = model
    if spec["kind"] == "torch-export":
        inputs, keywords = model.example_inputs or ((), {})
        if keywords or not inputs:
            return {}
        module = model.module()
    poking = importlib.import_module("poking")
    files: dict[str, str] = poking.poke(module, inputs, spec["poke"], Path(spec["inputs"]).parent)
    return files


def dynamic_shapes(spec: dict[str, Any]) -> Any:
    """For each input, the axes whose length may differ from call to call."""
    import torch

    if spec["dynamic"] is None:
        return None  # an exported program has its own
    batch = torch.export.Dim("batch")
    return tuple(
        {axis: batch if axis == 0 else torch.export.Dim.AUTO for axis in axes}
        for axes in spec["dynamic"]
    )


if __name__ == "__main__":
    sys.modules["tiesurgeon"] = None  # type: ignore[assignment]
    warnings.simplefilter("ignore")
    document = main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print("PROOF" + json.dumps(document))
