"""A SavedModel that can be called on arrays: as the Keras model it is, or by a signature."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tiesurgeon.errors import CannotRun, ProofFailed, UnsupportedFormat
from tiesurgeon.graph import Array
from tiesurgeon.rooms.keras.read import KerasFile
from tiesurgeon.rooms.keras.running import named, wanted_by
from tiesurgeon.rooms.savedmodel.read import read
from tiesurgeon.rooms.savedmodel.run import outputs, refuse_missing
from tiesurgeon.rooms.savedmodel.saved_model import SavedModel, Signature, read_saved_model
from tiesurgeon.running import Ran, Runnable, Wanted, Weights
from tiesurgeon.subprocesses import ask

SCRIPT = Path(__file__).with_name("signature_script.py")
_TENSOR = re.compile(r"(\w+)\[(.*)\]")


@dataclass(frozen=True)
class RunnableLayers:
    """A SavedModel with the Keras layers inside."""

    path: Path
    found: KerasFile
    format: str = "savedmodel"

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """As the input layers say."""
        return wanted_by(self.found.graph)

    def run(self, inputs: Mapping[str, Array] | None, ids: frozenset[str]) -> Ran:
        """The outputs, by the names of their layers."""
        assert inputs is not None  # they are wanted by name
        try:
            got = outputs(self.path, self.found.graph, inputs)
        except ProofFailed as error:
            raise CannotRun(f"{self.path}: {error.__cause__ or error}") from None
        return Ran(named(self.found.graph, got), inputs)


@dataclass(frozen=True)
class RunnableSignature:
    """A SavedModel of functions only, called by one of its signatures."""

    path: Path
    name: str
    signature: Signature
    format: str = "savedmodel"

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """As the signature says, in the order of names."""
        return tuple(_wanted(name, said) for name, said in self.signature.inputs.items())

    def run(self, inputs: Mapping[str, Array] | None, ids: frozenset[str]) -> Ran:
        """The outputs, by the names in the signature."""
        assert inputs is not None  # they are wanted by name
        with TemporaryDirectory(prefix="tiesurgeon-run-") as place:
            given, got = Path(place, "inputs.npz"), Path(place, "outputs.npz")
            np.savez(given, **inputs)  # type: ignore[arg-type]
            spec = {
                "folder": str(self.path.resolve()),
                "signature": self.name,
                "inputs": str(given),
                "outputs": str(got),
            }
            try:
                told = ask(SCRIPT, spec, Path(place))
            except ProofFailed as error:
                raise CannotRun(f"{self.path}: {error.__cause__ or error}") from None
            if "refused" in told:
                raise UnsupportedFormat(
                    f"{self.path}: not run, as its graph reaches beyond it ({told['refused'][0]})"
                )
            with np.load(got) as arrays:
                return Ran(tuple((name, arrays[name]) for name in arrays.files), inputs)


def open_runnable(path: Path, format: str, *, trust_code: bool) -> Runnable | Weights:
    """Opens a SavedModel; UnsupportedFormat where nothing in it can be called."""
    found = read(path)
    refuse_missing()
    if found.graph.calls:
        return RunnableLayers(path, found)
    saved = read_saved_model(path / "saved_model.pb")
    if not saved.objects:
        raise UnsupportedFormat(
            f"{path}: a SavedModel of TensorFlow 1, whose graph would run without being looked at; "
            "load it in TensorFlow and save it again"
        )
    name = _callable(saved)
    if name is None:
        raise UnsupportedFormat(f"{path}: it has no signature to call")
    return RunnableSignature(path, name, saved.signatures[name])


def _callable(saved: SavedModel) -> str | None:
    usual = (name for name in ("serving_default", "serve") if name in saved.signatures)
    return next(usual, next(iter(saved.signatures), None))


def _wanted(name: str, said: str) -> Wanted:
    """Of "int32[?, 5]"."""
    found = _TENSOR.fullmatch(said)
    if found is None or found[2] == "...":
        return Wanted(name, None, found[1] if found else "")
    sizes = [size for size in found[2].split(", ") if size]
    return Wanted(name, tuple(None if size == "?" else int(size) for size in sizes), found[1])
