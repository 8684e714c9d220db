"""The poke of an exported file: its one initializer changes, as the parameter of its model did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tiesurgeon.errors import ProofFailed
from tiesurgeon.outcome import Result
from tiesurgeon.rooms.onnx.run import is_installed
from tiesurgeon.subprocesses import ask

SCRIPT = Path(__file__).with_name("poke_script.py")
_TOLERANCE, _SHOWS = 1e-5, 1e-3


def poked(result: Result, path: Path, pokes: Mapping[str, Path]) -> Result:
    """The result with the poke in its proof; `pokes` are files of `rooms/pytorch/onnx/poking.py`.

    Raises ProofFailed where a use of the matrix does not follow.
    """
    if not pokes or not is_installed():
        return result
    files = {name: str(file.resolve()) for name, file in pokes.items()}
    with TemporaryDirectory(prefix="tiesurgeon-proof-") as place:
        spec = {"model": str(path.resolve()), "pokes": files}
        found = ask(SCRIPT, spec, Path(place))["pokes"]
    for name, one in zip(files, found, strict=True):
        if not one["difference"] <= _TOLERANCE * one["scale"]:
            raise ProofFailed(
                f"{path.name}: a change of {name} does not show at each of its uses; outputs are "
                f"{one['difference']:.3g} from what they must be"
            )
        if not one["moved"] > _SHOWS * one["scale"]:
            word = f"on the inputs that were made, a change of {name} shows in no output"
            return replace(result, warnings=(*result.warnings, word))
    return replace(result, proof=replace(result.proof, poke=True))
