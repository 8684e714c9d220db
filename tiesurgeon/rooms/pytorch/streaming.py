"""Numbers from file to file in bounded memory, and at the speed of a copy."""

from __future__ import annotations

import errno
import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Array
from tiesurgeon.rooms.pytorch.tensors import Extent

_BLOCK = 1 << 23
_KERNEL_BLOCK = 1 << 26  # an interrupt waits for one of these
# The kernel cannot copy between these two files; reading and writing can.
_NOT_HERE = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM}


def copy_extent(extent: Extent, file: IO[bytes]) -> None:
    """Appends the bytes of an extent to a file that is open for writing.

    Raises UnreadableFile if the file that they lie in has become shorter.
    """
    with extent.path.open("rb") as source:
        source.seek(extent.start)
        file.flush()
        left = extent.length - _copied_by_kernel(source.fileno(), file.fileno(), extent)
        source.seek(extent.start + extent.length - left)
        file.seek(0, os.SEEK_END)
        while left:
            block = source.read(min(left, _BLOCK))
            if not block:
                raise UnreadableFile(f"{extent.path}: became shorter while it was copied")
            file.write(block)
            left -= len(block)


def _copied_by_kernel(source: int, target: int, extent: Extent) -> int:
    """How many bytes the kernel copied without showing them to us."""
    done = 0
    place = os.lseek(target, 0, os.SEEK_END)
    while hasattr(os, "copy_file_range") and done < extent.length:
        count = min(extent.length - done, _KERNEL_BLOCK)
        try:
            copied = os.copy_file_range(source, target, count, extent.start + done, place + done)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            break
        if not copied:
            break
        _begin_writing(target, place + done, copied)
        done += copied
    return done


def _begin_writing(file: int, start: int, length: int) -> None:
    """Lets the disk start on what was copied, while more is copied and then read again.

    Pages that are not on the disk yet stay in memory, whatever the name of the advice says.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, start, length, os.POSIX_FADV_DONTNEED)


def write_array(array: Array, file: IO[bytes]) -> None:
    """Appends the numbers of an array in C order, little-endian; a mapped one leaves no pages."""
    for block in raw_blocks(array):
        file.write(block)


def raw_blocks(array: Array, order: Literal["little", "big"] = "little") -> Iterator[memoryview]:
    """The bytes of an array in C order, in blocks of some 8 MiB; a mapped one leaves no pages."""
    if not array.size:
        return
    if array.flags.c_contiguous:
        array = array.reshape(-1)
    row_bytes = array.nbytes // len(array)
    if row_bytes > _BLOCK and array.ndim > 1:
        for row in array:
            yield from raw_blocks(row, order)
        return
    rows = max(_BLOCK // row_bytes, 1)
    for start in range(0, len(array), rows):
        block = np.ascontiguousarray(array[start : start + rows]).reshape(-1)
        if block.dtype.isnative != (order == sys.byteorder):
            block = _byteswapped(block)
        yield block.view(np.uint8).data
        _release(array)


def _byteswapped(block: Array) -> Array:
    # bfloat16 and its like are no types of numpy's own, which therefore does not swap them.
    is_own = block.dtype.kind != "V"
    return (block if is_own else block.view(f"u{block.dtype.itemsize}")).byteswap()


def _release(array: Array) -> None:
    """Gives the pages of a mapped file back; they are read again if needed."""
    owner: Any = array
    while owner is not None and not isinstance(owner, mmap.mmap):
        owner = getattr(owner, "base", None)
    if owner is not None and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)


def copy_file(source: Path, target: Path) -> None:
    """Copies the content of a file to a new one."""
    with target.open("wb") as file:
        copy_extent(Extent(source, 0, source.stat().st_size), file)
