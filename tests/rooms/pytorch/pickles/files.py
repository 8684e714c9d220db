"""Files that the tests make, and the documents that they read back."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from tests.rooms.pytorch.pickles.torch_modules import Autoencoder, LanguageModel
from tiesurgeon.graph import View
from tiesurgeon.rooms.pytorch.document import TorchFile
from tiesurgeon.rooms.pytorch.pickles import read_pickled


def equal_language_model(**options: Any) -> LanguageModel:
    """A language model whose two matrices hold the same numbers, and are two."""
    torch.manual_seed(0)
    model = LanguageModel(**options)
    model.decoder.weight.data.copy_(model.embed.weight.data)
    return model


def equal_autoencoder(bias: bool = True) -> Autoencoder:
    torch.manual_seed(0)
    model = Autoencoder(bias)
    model.decoder.weight.data.copy_(model.encoder.weight.data.t())
    return model


def saved(thing: Any, path: Path, *, legacy: bool = False) -> Path:
    torch.save(thing, path, _use_new_zipfile_serialization=not legacy)
    return path


def tied(
    path: Path,
    source: str,
    target: str,
    perm: tuple[int, ...] | None = None,
    *,
    to: str = "tied.pt",
) -> TorchFile:
    """Reads a file and ties two names; the result stands beside it."""
    found = read_pickled(path)
    found.document.tie(source, target, perm)
    found.document.write(path.with_name(to), {"source": path.name})
    return found


def untied(path: Path, name: str) -> TorchFile:
    """Reads a file and unties a name; the result stands beside it as `untied.pt`."""
    found = read_pickled(path)
    found.document.untie(name)
    found.document.write(path.with_name("untied.pt"), {})
    return found


def views(found: TorchFile) -> dict[str, View]:
    """Everything in a file by its full name."""
    return {layer.name_of(v, path): v for path, layer in found.graph.walk() for v in layer.views}


def storage_members(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        names = (name.partition("/")[2] for name in archive.namelist())
        return {name for name in names if name.startswith("data/")}


def with_pickle(path: Path, data: bytes, like: Path | None = None) -> Path:
    """A file like another one (else one of six numbers) with another pickle."""
    like = like or saved({"weight": torch.ones(2, 3)}, path)
    with zipfile.ZipFile(like) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in members:
            archive.writestr(info, data if info.filename.endswith("/data.pkl") else content)
    return path


class Call:
    """Pickled, it is a call of any function with any arguments."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def dumped(thing: Any, protocol: int = 2) -> bytes:
    return pickle.dumps(thing, protocol)
