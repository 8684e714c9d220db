"""HDF5 as Keras uses it, read without trust: no other files, no impossible sizes, no loops.

Numbers are not read here: each dataset becomes a `Storage` that maps the file's own bytes
when they lie in one piece, and goes through h5py when they are chunked or compressed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py
import ml_dtypes
import numpy as np

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Array, Shape, Storage
from tiesurgeon.rooms.keras.heaps import Extent, refuse_bad_strings
from tiesurgeon.rooms.keras.source import Source

# deflate cannot shrink more than this; a dataset that claims more is a bomb.
_MOST_COMPRESSION = 1100
_FREE_BYTES = 1 << 26
_LARGEST_ATTRIBUTE = 1 << 26
_DEEPEST = 64
_TEXT_AND_NUMBERS = (h5py.h5t.STRING, h5py.h5t.INTEGER, h5py.h5t.FLOAT)


class Hdf5:
    """One opened HDF5 file: attributes, and datasets as storages."""

    def __init__(self, source: Source, file: h5py.File) -> None:
        self.source = source
        self.file = file
        self.start = source.start()
        self.bytes = source.path.stat().st_size
        refuse_bad_strings(source.path, self.start, self._extents())

    def _extents(self) -> Iterator[Extent]:
        for _, item in self.walk():
            offset = item.id.get_offset() if isinstance(item, h5py.Dataset) else None
            if offset is not None:
                yield self.start + offset, self.start + offset + item.id.get_storage_size()

    def text(self, name: str, group: Any = None) -> str | None:
        """An attribute (of the root) that holds text, or None."""
        value = attribute(self.file if group is None else group, name)
        if value is None:
            return None
        return value.decode("utf-8") if isinstance(value, bytes) else str(value)

    def group(self, parent: Any, name: str) -> Any:
        """The group of that name inside this file; UnreadableFile otherwise."""
        found = self._inside(parent, name)
        if not isinstance(found, h5py.Group):
            raise UnreadableFile(f"group {name!r} is missing; the file is damaged")
        return found

    def walk(self) -> Iterator[tuple[str, Any]]:
        """Every group and dataset with its path, `/` between levels; groups before their own."""
        yield from self._walk(self.file, "", 0)

    def _walk(self, group: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
        if depth > _DEEPEST:  # a group may hold itself
            raise UnreadableFile(f"its groups go deeper than {_DEEPEST} levels, or in a circle")
        for name in group:
            item, path = self._inside(group, name), f"{prefix}{name}"
            yield path.replace("\\", "/"), item
            if isinstance(item, h5py.Group):
                yield from self._walk(item, f"{path}/", depth + 1)

    def storage_at(self, group: Any, name: str) -> Storage:
        """The dataset of that name in the group."""
        *folders, leaf = name.split("/")
        for folder in folders:
            group = self.group(group, folder)
        dataset = self._inside(group, leaf)
        if not isinstance(dataset, h5py.Dataset):
            raise UnreadableFile(f"weight {name!r} is missing; the file is damaged")
        return self.storage(dataset)

    def _inside(self, parent: Any, name: str) -> Any:
        """The member of that name, None if there is none; links are refused."""
        # An empty name or one of dots would be the group itself.
        if name in ("", ".") or name not in parent:
            return None
        link = parent.get(name, getlink=True)
        if isinstance(link, (h5py.ExternalLink, h5py.SoftLink)):
            raise UnreadableFile(f"{name!r} is a link, which is not followed")
        return parent[name]

    def storage(self, dataset: h5py.Dataset) -> Storage:
        """A lazy storage over a dataset."""
        where = f"weight {dataset.name!r}"
        dtype, shape = _dtype(dataset, where), tuple(int(dim) for dim in dataset.shape or ())
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if dataset.external or dataset.is_virtual:
            raise UnreadableFile(f"{where} points to another file, which is not followed")
        stored = dataset.id.get_storage_size()
        if size > _FREE_BYTES and size > stored * _MOST_COMPRESSION:
            raise UnreadableFile(f"{where} claims {size:,} bytes where the file holds {stored:,}")
        offset = dataset.id.get_offset()
        if offset is None or dataset.chunks is not None:
            return _through_h5py(dataset.name, self.source, shape, dtype)
        if offset + self.start + size > self.bytes:
            raise UnreadableFile(f"{where} ends beyond the end of the file: it was cut short")
        return _mapped(dataset.name, self.source, offset + self.start, shape, dtype)


def attribute(group: Any, name: str) -> Any:
    """An attribute's value, None if there is none; UnreadableFile if it is too large to be one."""
    if name not in group.attrs:
        return None
    found = group.attrs.get_id(name)
    if found.get_type().get_class() not in _TEXT_AND_NUMBERS:
        # Among other things: the library crashes over a damaged type of strings.
        raise UnreadableFile(f"its attribute {name!r} is neither text nor numbers")
    size = int(np.prod(found.shape or (), dtype=object)) * max(found.dtype.itemsize, 1)
    if size > _LARGEST_ATTRIBUTE:
        raise UnreadableFile(f"its attribute {name!r} claims {size:,} bytes")
    return group.attrs[name]


def names(group: Any, listed: str) -> list[str]:
    """A list of names kept in an attribute, or in numbered pieces of it.

    HDF5 attributes end at 64 KB, so Keras writes `weight_names0`, `weight_names1`, ...
    (legacy_h5_format.py, `save_attributes_to_hdf5_group`).
    """
    pieces = [listed] if listed in group.attrs else []
    while not (pieces and pieces[0] == listed) and f"{listed}{len(pieces)}" in group.attrs:
        pieces.append(f"{listed}{len(pieces)}")
    found: list[str] = []
    for piece in pieces:
        value = np.atleast_1d(attribute(group, piece))
        found += [n.decode("utf-8") if isinstance(n, bytes) else str(n) for n in value]
    return found


def _dtype(dataset: h5py.Dataset, where: str) -> np.dtype[Any]:
    dtype: np.dtype[Any] = dataset.dtype
    if dtype == np.dtype("V2"):
        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16  # HDF5 has no such type: Keras stores two raw bytes
    if dtype.kind not in "fiub" or dtype.subdtype is not None:
        raise UnreadableFile(f"{where} has type {dtype}, expected numbers")
    return dtype


def _mapped(key: str, source: Source, offset: int, shape: Shape, dtype: np.dtype[Any]) -> Storage:
    def load() -> Array:
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.memmap(source.path, dtype, "r", offset, shape)

    return Storage(key, shape, dtype, load)


def _through_h5py(key: str, source: Source, shape: Shape, dtype: np.dtype[Any]) -> Storage:
    def load() -> Array:
        with source.open() as file:
            array = np.asarray(file[key])
        return array.view(dtype) if array.dtype.kind == "V" else array

    return Storage(key, shape, dtype, load)
