"""The numbers behind the tensors of a pickle: in the file, or put in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Array, Storage
from tiesurgeon.rooms.pytorch.containers import Container
from tiesurgeon.rooms.pytorch.pickles.nodes import Persistent, walk
from tiesurgeon.rooms.pytorch.pickles.recognised import StorageReference, Tensor, storage_of
from tiesurgeon.rooms.pytorch.tensors import DType, Extent, Storages


@dataclass
class Numbers:
    """Storages of one file by key. `replaced` are those that the file will have otherwise."""

    extents: Mapping[str, Extent]
    swapped: bool
    replaced: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._storages = Storages(self.swapped)

    def stored(self, name: str, tensor: Tensor) -> tuple[Storage, tuple[int, ...] | None]:
        """The storage that a tensor sees and its transpose, as the file has them.

        Raises UnreadableFile where it sees more than the file has.
        """
        key, size = tensor.storage.key, tensor.storage.numel * tensor.storage.dtype.itemsize
        extent = self.extents[key]
        if size > extent.length:
            raise UnreadableFile(
                f"tensor {name!r} needs {size:,} bytes of storage {key!r}, which has "
                f"{extent.length:,}: cut short, or made to deceive"
            )
        extent = Extent(extent.path, extent.start, size)
        return self._storages.of(name, key, extent, tensor.layout)

    def load(self, name: str, tensor: Tensor) -> Array:
        """The tensor as it is now; mapped from the file where that is possible."""
        if tensor.storage.key in self.replaced:
            return _seen(self.replaced[tensor.storage.key], tensor)
        storage, perm = self.stored(name, tensor)
        return storage.load() if perm is None else storage.load().transpose(perm)

    def assign(self, name: str, tensor: Tensor, value: Array) -> None:
        """Gives a tensor other numbers, and with it all others that see the same bytes."""
        storage, layout = tensor.storage, tensor.layout
        if tuple(value.shape) != layout.shape or value.dtype != layout.dtype:
            raise AssertionError(f"{name}: {value.shape} put in place of {layout.shape}")
        covers = layout.span * layout.dtype.itemsize == storage.numel * storage.dtype.itemsize
        if covers and layout.offset == 0 and (layout.is_contiguous or layout.perm is not None):
            perm = layout.perm
            back = None if perm is None else tuple(np.argsort(perm))
            whole = np.ascontiguousarray(value if back is None else value.transpose(back))
            self.replaced[storage.key] = whole.reshape(-1).view(storage.dtype)
            return
        known = self.replaced.get(storage.key)
        whole = self._whole(tensor) if known is None else np.array(known)
        _seen(whole, tensor)[...] = value
        self.replaced[storage.key] = whole

    def add(self, key: str, array: Array) -> None:
        """A storage that the file does not have yet."""
        self.replaced[key] = array

    def _whole(self, tensor: Tensor) -> Array:
        """A copy of all numbers of a storage."""
        storage = tensor.storage
        found = self.extents[storage.key]
        dtype: DType = storage.dtype
        if self.swapped:
            dtype = dtype.newbyteorder("S")
        length = storage.numel * dtype.itemsize
        return np.array(Extent(found.path, found.start, length).mapped(dtype), storage.dtype)


def _seen(whole: Array, tensor: Tensor) -> Array:
    """What a tensor sees of a storage, to be read or written."""
    layout = tensor.layout
    flat = whole.view(layout.dtype)[layout.offset : layout.offset + layout.span]
    steps = tuple(step * layout.dtype.itemsize for step in layout.strides)
    return np.lib.stride_tricks.as_strided(flat, layout.shape, steps)


def storages_in(root: Any) -> dict[str, StorageReference]:
    """Every storage that the tree names, by key."""
    found: dict[str, StorageReference] = {}
    for node in walk(root):
        if type(node) is Persistent and (storage := storage_of(node)) is not None:
            found.setdefault(storage.key, storage)
    return found


def numbers_of(container: Container, root: Any) -> Numbers:
    """The storages of a file, each with the place where it lies."""
    sizes = {key: storage.dtype.itemsize for key, storage in storages_in(root).items()}
    return Numbers(container.extents(sizes), container.swapped)
