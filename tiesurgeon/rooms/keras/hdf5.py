"""HDF5 as Keras uses it, read without trust: no external files, no impossible sizes.

Numbers are not read here: each dataset becomes a `Storage` that maps the file's own bytes
when they lie in one piece, and goes through h5py when they are chunked or compressed.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import h5py
import ml_dtypes
import numpy as np

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Array, Storage

WEIGHTS_MEMBER = "model.weights.h5"
# deflate cannot shrink more than this; a dataset that claims more is a bomb.
_MOST_COMPRESSION = 1100
_FREE_BYTES = 1 << 26


@dataclass(frozen=True)
class Source:
    """Where an HDF5 file lies: a file of its own, or a member of a `.keras` archive."""

    path: Path
    member: str | None = None

    @contextmanager
    def open(self) -> Iterator[h5py.File]:
        """The opened HDF5 file; UnreadableFile if it is not one."""
        try:
            with self._stream() as stream, h5py.File(stream, "r") as file:
                yield file
        except (OSError, RuntimeError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())
            raise UnreadableFile(f"{self.path}: not a readable HDF5 file ({reason})") from None

    @contextmanager
    def _stream(self) -> Iterator[IO[bytes] | Path]:
        if self.member is None:
            yield self.path
            return
        with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
            if archive.getinfo(self.member).compress_type == zipfile.ZIP_STORED:
                yield stream
            else:  # seeking in a compressed stream would read it again and again
                yield io.BytesIO(stream.read())

    def start(self) -> int | None:
        """Byte at which the HDF5 file starts in `path`; None if it is compressed there."""
        if self.member is None:
            return 0
        with zipfile.ZipFile(self.path) as archive:
            info = archive.getinfo(self.member)
            if info.compress_type != zipfile.ZIP_STORED:
                return None
            with self.path.open("rb") as raw:  # the local header's lengths are the true ones
                raw.seek(info.header_offset + 26)
                name_length = int.from_bytes(raw.read(2), "little")
                extra_length = int.from_bytes(raw.read(2), "little")
            return info.header_offset + 30 + name_length + extra_length


class Hdf5:
    """One opened HDF5 file: attributes, and datasets as storages."""

    def __init__(self, source: Source, file: h5py.File) -> None:
        self.source = source
        self.file = file
        self.start = source.start()
        self.bytes = source.path.stat().st_size

    def text(self, name: str) -> str | None:
        """A root attribute that holds text, or None."""
        value = self.file.attrs.get(name)
        if value is None:
            return None
        return value.decode("utf-8") if isinstance(value, bytes) else str(value)

    def group(self, parent: Any, name: str) -> Any:
        """The group of that name inside this file; UnreadableFile otherwise."""
        self._refuse_links(parent, name)
        group = parent.get(name)
        if not isinstance(group, h5py.Group):
            raise UnreadableFile(f"{self.source.path}: group {name!r} is missing; file damaged?")
        return group

    def datasets(self) -> Iterator[tuple[str, Storage]]:
        """Every dataset of the file with its path, `/` between levels."""
        yield from self._walk(self.file, "")

    def _walk(self, group: Any, prefix: str) -> Iterator[tuple[str, Storage]]:
        for name in group:
            self._refuse_links(group, name)
            item, path = group[name], f"{prefix}{name}"
            if isinstance(item, h5py.Dataset):
                yield path.replace("\\", "/"), self.storage(item)
            else:
                yield from self._walk(item, f"{path}/")

    def storage_at(self, group: Any, name: str) -> Storage:
        """The dataset of that name in the group."""
        parent = group
        for part in name.split("/")[:-1]:
            parent = self.group(parent, part)
        leaf = name.split("/")[-1]
        self._refuse_links(parent, leaf)
        dataset = parent.get(leaf)
        if not isinstance(dataset, h5py.Dataset):
            raise UnreadableFile(f"{self.source.path}: weight {name!r} is missing; file damaged?")
        return self.storage(dataset)

    def storage(self, dataset: h5py.Dataset) -> Storage:
        """A lazy storage over a dataset."""
        dtype, shape = _dtype(dataset), tuple(int(dim) for dim in dataset.shape or ())
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        where = f"{self.source.path}: weight {dataset.name!r}"
        if dataset.external or dataset.is_virtual:
            raise UnreadableFile(f"{where} points to another file, which is not followed")
        if size > _FREE_BYTES and size > self.bytes * _MOST_COMPRESSION:
            raise UnreadableFile(f"{where} claims {size:,} bytes in a file of {self.bytes:,}")
        offset = dataset.id.get_offset()
        if offset is not None and self.start is not None and dataset.chunks is None:
            if offset + self.start + size > self.bytes:
                raise UnreadableFile(f"{where} ends beyond the end of the file; file truncated?")
            return _mapped(dataset.name, self.source.path, offset + self.start, shape, dtype)
        return _through_h5py(dataset.name, self.source, shape, dtype)

    def _refuse_links(self, group: Any, name: str) -> None:
        link = group.get(name, getlink=True)
        if isinstance(link, (h5py.ExternalLink, h5py.SoftLink)):
            raise UnreadableFile(f"{self.source.path}: {name!r} is a link, which is not followed")


def _dtype(dataset: h5py.Dataset) -> np.dtype[Any]:
    dtype = dataset.dtype
    if dataset.attrs.get("dtype") == "bfloat16" or dtype == np.dtype("V2"):
        return np.dtype(ml_dtypes.bfloat16)  # HDF5 has no such type: Keras stores two raw bytes
    if dtype.kind not in "fiub?":
        raise UnreadableFile(f"weight {dataset.name!r} has type {dtype}, expected numbers")
    return np.dtype(dtype)


def _mapped(
    key: str, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Storage:
    def load() -> Array:
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", offset, shape)

    return Storage(key, shape, dtype, load)


def _through_h5py(
    key: str, source: Source, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Storage:
    def load() -> Array:
        with source.open() as file:
            array = np.asarray(file[key])
        return array.view(dtype) if array.dtype.kind == "V" else array

    return Storage(key, shape, dtype, load)


def names(group: Any, attribute: str) -> list[str]:
    """A list of names kept in an attribute, or in numbered pieces of it.

    HDF5 attributes end at 64 KB, so Keras writes `weight_names0`, `weight_names1`, ...
    (legacy_h5_format.py, `save_attributes_to_hdf5_group`).
    """
    pieces = [attribute] if attribute in group.attrs else []
    while not (pieces and pieces[0] == attribute) and f"{attribute}{len(pieces)}" in group.attrs:
        pieces.append(f"{attribute}{len(pieces)}")
    found: list[str] = []
    for piece in pieces:
        found += [n.decode() if isinstance(n, bytes) else str(n) for n in group.attrs[piece]]
    return found
