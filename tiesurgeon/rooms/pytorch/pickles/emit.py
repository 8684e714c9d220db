"""An inert tree is written as a pickle again, in the order in which it was read.

Only what is referred to more than once is put in the memo. Python's pickler writes strings
and numbers; containers are written without recursion, however deep they are.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.rooms.pytorch.pickles.nodes import (
    ByteString,
    Global,
    Persistent,
    Record,
    Step,
    children,
)

_BATCH = 1000
_DEEPEST = 100_000
_NEVER_SHARED = (int, float, complex, bool, type(None))
_TUPLES = (pickle.EMPTY_TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)

_PLAIN: Any = pickle._Pickler.dispatch

# What a container yields while it is written: its children, one by one.
_Work = Iterator[Any]


def encode(root: Any, protocol: int, *, for_torchscript: bool = False) -> bytes:
    """The pickle of a tree. TorchScript's own reader, which is not Python's, makes an object
    only when it is complete, so its objects are put in the memo only then.

    Raises UnreadableFile where objects are nested too deeply, or such an object holds itself.
    """
    try:
        return _written(root, protocol, _shared(root), late=for_torchscript)
    except _HoldsItselfError:
        if for_torchscript:
            raise UnreadableFile("an object of this TorchScript file holds itself") from None
        return _written(root, protocol, None, late=False)


def _written(root: Any, protocol: int, shared: set[int] | None, *, late: bool) -> bytes:
    file = io.BytesIO()
    _Writer(file, max(protocol, 2), shared, late=late).dump(root)
    return file.getvalue()


class _HoldsItselfError(Exception):
    """An object is needed to make itself; Python's way out is a memo of everything."""


def _shared(root: Any) -> set[int]:
    """Ids of the objects that are held more than once."""
    seen, shared = {id(root)}, set()
    left = [root]
    while left:
        for child in children(left.pop()):
            if isinstance(child, _NEVER_SHARED) or (type(child) is tuple and not child):
                continue
            if id(child) in seen:
                shared.add(id(child))
            else:
                seen.add(id(child))
                left.append(child)
    return shared


class _Writer(pickle._Pickler):
    proto: int
    memo: dict[int, tuple[int, Any]]
    write: Callable[[bytes], object]
    get: Callable[[int], bytes]

    def __init__(
        self, file: io.BytesIO, protocol: int, shared: set[int] | None, *, late: bool
    ) -> None:
        super().__init__(file, protocol, fix_imports=False)
        self._shared, self._late = shared, late
        self._open: set[int] = set()

    def dump(self, obj: Any) -> None:
        """As the base class does it, but with a stack of its own, and without frames."""
        self.write(pickle.PROTO + bytes([self.proto]))
        left = [iter((obj,))]
        while left:
            if len(left) > _DEEPEST:
                raise UnreadableFile(f"its pickle is nested more than {_DEEPEST:,} levels deep")
            for child in left[-1]:
                work = self._begin(child)
                if work is not None:
                    left.append(work)
                    break
            else:
                left.pop()
        self.write(pickle.STOP)

    def memoize(self, obj: Any) -> None:
        """Only what is referred to again, or everything where that is not known."""
        if self._shared is None or id(obj) in self._shared:
            super().memoize(obj)  # type: ignore[misc]

    def _begin(self, node: Any) -> _Work | None:
        known = self.memo.get(id(node))
        if known is not None:
            self.write(self.get(known[0]))
            return None
        kind = type(node)
        if kind is dict:
            return self._dict(node)
        if kind is list:
            return self._list(node)
        if kind is tuple:
            return self._tuple(node)
        if kind is Record:
            return self._record(node)
        if kind is Persistent:
            return self._persistent(node)
        if kind is Global:
            return self._global(node)
        self._plain(node)
        return None

    def _plain(self, node: Any) -> None:
        if type(node) is ByteString:
            self.write(pickle.BINSTRING + len(node).to_bytes(4, "little") + node)
            self.memoize(node)
        elif type(node) is bytes:
            self.write(pickle.BINBYTES + len(node).to_bytes(4, "little") + node)
            self.memoize(node)
        elif type(node) is bytearray:
            self.write(pickle.BYTEARRAY8 + len(node).to_bytes(8, "little") + node)
            self.memoize(node)
        else:
            _PLAIN[type(node)](self, node)

    def _dict(self, node: dict[Any, Any]) -> _Work:
        self.write(pickle.EMPTY_DICT)
        self.memoize(node)
        yield from self._batches(list(children(node)), pickle.SETITEMS)

    def _list(self, node: list[Any]) -> _Work:
        self.write(pickle.EMPTY_LIST)
        self.memoize(node)
        yield from self._batches(node, pickle.APPENDS)

    def _batches(self, values: list[Any], opcode: bytes) -> _Work:
        for start in range(0, len(values), 2 * _BATCH):
            self.write(pickle.MARK)
            yield from values[start : start + 2 * _BATCH]
            self.write(opcode)

    def _tuple(self, node: tuple[Any, ...]) -> _Work:
        self._enter(node)
        is_long = len(node) >= len(_TUPLES)
        if is_long:
            self.write(pickle.MARK)
        yield from node
        self.write(pickle.TUPLE if is_long else _TUPLES[len(node)])
        self._finish(node)

    def _finish(self, node: Any) -> bool:
        """Puts a complete object in the memo; if it held itself, it was written inside already."""
        self._open.discard(id(node))
        known = self.memo.get(id(node))
        if known is None:
            self.memoize(node)
            return True
        self.write(pickle.POP + self.get(known[0]))
        return False

    def _record(self, node: Record) -> _Work:
        self._enter(node)
        if node.opcode in (pickle.OBJ, pickle.FROZENSET):
            self.write(pickle.MARK)
        yield from node.parts
        self.write(node.opcode)
        if self._late:
            yield from self._steps(node.steps)
            self._finish(node)
        elif self._finish(node):
            yield from self._steps(node.steps)

    def _steps(self, steps: list[Step]) -> _Work:
        for step in steps:
            if step.opcode == pickle.BUILD:
                yield from step.values
                self.write(pickle.BUILD)
            else:
                yield from self._batches(step.values, step.opcode)

    def _enter(self, node: Any) -> None:
        if id(node) in self._open and self._shared is not None:
            raise _HoldsItselfError
        self._open.add(id(node))

    def _persistent(self, node: Persistent) -> _Work:
        yield node.value
        self.write(pickle.BINPERSID)
        self._finish(node)

    def _global(self, node: Global) -> _Work:
        if self.proto >= 4:
            yield node.module
            yield node.name
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{node.module}\n{node.name}\n".encode())
        self._finish(node)
