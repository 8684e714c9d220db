"""Which format can become which, and who does it; the frameworks' rooms do the work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tiesurgeon import __version__, edits
from tiesurgeon.errors import CannotRun, MissingFramework, ProofFailed, UnsupportedFormat
from tiesurgeon.model import Change, Model, Permissions
from tiesurgeon.outcome import Result

FORMATS = ("torch", "keras", "h5", "savedmodel", "onnx", "pt2", "safetensors", "state-dict")

# Converts an opened model, writing to a path; `full` asks for the full proof.
Write = Callable[[Any, Path, Permissions, bool], Result]


@dataclass(frozen=True)
class Converter:
    """One way from a room's models to a format. A folder has no `suffixes`."""

    to: str
    suffixes: tuple[str, ...]
    write: Write

    @property
    def writes_folder(self) -> bool:
        """True if the output is a folder."""
        return not self.suffixes

    def refuse_output(self, output: Path) -> None:
        """UnsupportedFormat if the name of the output promises another format."""
        if self.suffixes and output.suffix not in self.suffixes:
            raise UnsupportedFormat(
                f"-o {output}: --to {self.to} writes a file that ends in {self.suffixes[0]}"
            )


def _keras_file(model: Any, path: Path, permissions: Permissions, full: bool) -> Result:
    model.refuse_unchangeable()
    change = Change(
        before=edits.untie(model.graph),  # what the proof of the ties compares with
        after=model.graph,
        provenance=_provenance(model),
    )
    result: Result = model.write(change, path, full=full)
    return result


def _keras_to_torch(model: Any, path: Path, permissions: Permissions, full: bool) -> Result:
    from tiesurgeon.crossing.to_torch import keras_to_torch

    model.refuse_unchangeable()
    return keras_to_torch(model, path, full=full)


def _keras_to_export(model: Any, path: Path, permissions: Permissions, full: bool) -> Result:
    from tiesurgeon.crossing.to_torch import keras_to_program

    model.refuse_unchangeable()
    result = keras_to_program(model, path, _provenance(model), full=full)
    return _compared(model, path, permissions, result) if full else result


def _keras_to_savedmodel(model: Any, path: Path, permissions: Permissions, full: bool) -> Result:
    from tiesurgeon.rooms.savedmodel.conversion import to_savedmodel

    return to_savedmodel(model, path, _provenance(model), full=full)


def _keras_to_onnx(model: Any, path: Path, permissions: Permissions, full: bool) -> Result:
    from tiesurgeon.crossing.to_onnx import keras_to_onnx

    model.refuse_unchangeable()
    result = keras_to_onnx(model, path, permissions, _provenance(model), full=full)
    return _compared(model, path, permissions, result) if full else result


def _torch_to_onnx(model: Any, path: Path, permissions: Permissions, full: bool) -> Result:
    from tiesurgeon.crossing.to_onnx import torch_to_onnx

    result = torch_to_onnx(model, path, _provenance(model), full=full)
    return _compared(model, path, permissions, result) if full else result


def _torch_to_safetensors(model: Any, path: Path, permissions: Permissions, full: bool) -> Result:
    from tiesurgeon.rooms.pytorch.conversion import to_safetensors

    return to_safetensors(model, path, _provenance(model), full=full)


def _torch_to_state_dict(model: Any, path: Path, permissions: Permissions, full: bool) -> Result:
    from tiesurgeon.rooms.pytorch.conversion import to_state_dict

    return to_state_dict(model, path, _provenance(model), full=full)


def _torch_to_export(model: Any, path: Path, permissions: Permissions, full: bool) -> Result:
    from tiesurgeon.rooms.pytorch.conversion import to_export

    return to_export(model, path, _provenance(model), full=full)


def _compared(model: Model, path: Path, permissions: Permissions, result: Result) -> Result:
    """The outputs of what was written against those of the model, each in its own framework.

    Raises ProofFailed where they differ; where one of them cannot be run a warning says so.
    """
    from tiesurgeon.verification import verify

    try:
        found = verify(
            model.path,
            path,
            inputs=permissions.example_inputs,
            trust_code=permissions.trust_code,
            atol=_TOLERANCE,
        )
    except (CannotRun, MissingFramework, UnsupportedFormat) as error:
        word = f"outputs were not compared: {error}"
        return replace(result, warnings=(*result.warnings, word))
    scale = max(1.0, *(abs(complex(one.a)) for one in found.differences))
    if not found.max_abs_diff <= _TOLERANCE * scale:
        worst = found.worst
        raise ProofFailed(
            f"output {worst.name or 1} of what was written differs by {found.max_abs_diff:.3g} "
            f"from the model's (at most {_TOLERANCE * scale:.3g} was expected)"
        )
    proof = replace(result.proof, max_abs_diff=found.max_abs_diff)
    return replace(result, proof=proof, warnings=(*result.warnings, *found.warnings))


_TOLERANCE = 1e-5
_TORCH_FILES = (".pt", ".pth", ".bin", ".ckpt")
_FROM_KERAS = (
    Converter("torch", (), _keras_to_torch),
    Converter("keras", (".keras", ".hdf5"), _keras_file),
    Converter("h5", (".h5", ".hdf5"), _keras_file),
    Converter("savedmodel", (), _keras_to_savedmodel),
    Converter("onnx", (".onnx",), _keras_to_onnx),
    Converter("pt2", (".pt2",), _keras_to_export),
)
_CONVERTERS: dict[str, tuple[Converter, ...]] = {
    "keras": _FROM_KERAS,
    "savedmodel": tuple(
        Converter("savedmodel", (), _keras_file) if one.to == "savedmodel" else one
        for one in _FROM_KERAS
    ),
    "pytorch": (
        Converter("pt2", (".pt2",), _torch_to_export),
        Converter("safetensors", (".safetensors",), _torch_to_safetensors),
        Converter("state-dict", _TORCH_FILES, _torch_to_state_dict),
        Converter("onnx", (".onnx",), _torch_to_onnx),
    ),
}


def find(room: str | None, to: str, model: Path) -> Converter:
    """The converter for a room's models; UnsupportedFormat, naming those there are, if none."""
    converters = _CONVERTERS.get(room or "", ())
    for converter in converters:
        if converter.to == to:
            return converter
    able = ", ".join(converter.to for converter in converters)
    can = f"can be converted to {able}" if able else "cannot be converted, only tied and untied"
    raise UnsupportedFormat(f"--to {to}: {model} {can}")


def _provenance(model: Model) -> dict[str, object]:
    return {"version": __version__, "source": model.path.name, "ties": []}
