"""A first look at a path: enough to tell what it is, and no more."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tiesurgeon.errors import UnreadableFile

_HEAD = 4096
_HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Probe:
    """What a look at a path tells: its first bytes, or the names of what it holds."""

    path: Path
    head: bytes = b""
    names: frozenset[str] = field(default_factory=frozenset)  # of a zip file or a folder
    is_folder: bool = False
    is_zip: bool = False

    @cached_property
    def is_hdf5(self) -> bool:
        """True if the HDF5 signature stands where the format allows it: 0, 512, 1024, ..."""
        if self.head.startswith(_HDF5):
            return True
        if self.is_folder or self.is_zip:
            return False
        size, offset = self.path.stat().st_size, 512
        with self.path.open("rb") as file:
            while offset + len(_HDF5) <= size:
                file.seek(offset)
                if file.read(len(_HDF5)) == _HDF5:
                    return True
                offset *= 2
        return False

    @cached_property
    def has_config(self) -> bool:
        """True for an HDF5 file in which Keras wrote the architecture too."""
        import h5py

        try:
            with h5py.File(self.path, "r") as file:
                return "model_config" in file.attrs
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UnreadableFile(
                f"{self.path}: starts as an HDF5 file but cannot be opened ({reason}); "
                "damaged or not fully downloaded, so get it again"
            ) from None

    def holds(self, *endings: str) -> bool:
        """True if a zip member or a file in the folder ends so."""
        return any(name.endswith(endings) for name in self.names)


def look(path: Path) -> Probe:
    """Looks at a path; UnreadableFile for what is missing, empty, or a broken zip file."""
    try:
        if path.is_dir():
            return Probe(path, names=frozenset(p.name for p in path.iterdir()), is_folder=True)
        if not path.exists():
            raise UnreadableFile(f"{path}: no such file")
        if not path.is_file():
            raise UnreadableFile(f"{path}: neither a file nor a folder; expected a model")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise UnreadableFile(f"{path}: cannot be read ({error.strerror})") from None
    if not head:
        raise UnreadableFile(f"{path}: the file is empty; expected a model")
    if not head.startswith(b"PK"):
        return Probe(path, head)
    try:
        with zipfile.ZipFile(path) as archive:
            return Probe(path, head, frozenset(archive.namelist()), is_zip=True)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UnreadableFile(
            f"{path}: starts as a zip file (.keras, .pt) but cannot be opened ({error}); "
            "damaged or not fully downloaded, so get it again"
        ) from None
