"""A pickle is decoded here, into an inert tree: nothing is imported, called or filled.

Python's own pickle machine, the one written in Python, does the stack and the memo; every
opcode that would act is replaced. What a pickle merely claims (a length, a memo index) is
never allocated.
https://docs.python.org/3/library/pickletools.html
"""

from __future__ import annotations

import io
import pickle
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.rooms.pytorch.pickles.nodes import ByteString, Global, Persistent, Record, Step

LARGEST_PICKLE = 1 << 28  # bytes
_MOST_OPCODES = 20_000_000
_MOST_MADE = 3_000_000  # objects and memo entries, some 100 bytes each
_MOST_KEY_PARTS = 64  # of a tuple that is a key

_MAKING = frozenset(
    pickle.MARK + pickle.EMPTY_LIST + pickle.EMPTY_DICT + pickle.EMPTY_SET + pickle.TUPLE1
    + pickle.TUPLE2 + pickle.TUPLE3 + pickle.REDUCE + pickle.NEWOBJ + pickle.NEWOBJ_EX
    + pickle.BINPERSID + pickle.PERSID + pickle.GLOBAL + pickle.STACK_GLOBAL + pickle.BUILD
    + pickle.PUT + pickle.BINPUT + pickle.LONG_BINPUT + pickle.MEMOIZE
)  # fmt: skip
_PLAIN_KEYS = (str, int, float, complex, bool, type(None), bytes, ByteString, Global, Record)


@dataclass(frozen=True)
class Decoded:
    """The tree of a pickle, and the protocol that it was written in."""

    root: Any
    protocol: int


def decode(data: bytes) -> Decoded:
    """Decodes a pickle without running it.

    Raises UnreadableFile for one that is too large, too busy, cut short or ill-formed.
    """
    if len(data) > LARGEST_PICKLE:
        raise UnreadableFile(f"its pickle has {len(data):,} bytes, so describes no model")
    machine = _Machine(data)
    try:
        root = machine.load()
    except (EOFError, struct.error, IndexError) as error:
        is_short = not isinstance(error, IndexError)
        reason = "ends before it is complete" if is_short else "is ill-formed"
        raise UnreadableFile(f"its pickle {reason}: cut short, or made to deceive") from None
    except KeyError as error:
        raise UnreadableFile(f"its pickle has an unknown opcode ({error})") from None
    except (ValueError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        text = " ".join(str(error).split())
        raise UnreadableFile(f"its pickle is ill-formed ({text})") from None
    return Decoded(root, machine.proto)


class _Machine(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    proto: int
    stack: list[Any]
    append: Callable[[Any], None]

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self._globals: dict[tuple[str, str], Global] = {}

    def load(self) -> Any:
        """As the base class does it, but counted."""
        self._unframer = pickle._Unframer(self._file_read, self._file_readline)  # type: ignore[attr-defined]
        self.read, self.readline = self._unframer.read, self._unframer.readline
        self.metastack: list[list[Any]] = []
        self.stack = []
        self.append = self.stack.append
        self.proto = 0
        made, dispatch = 0, self.dispatch
        for _ in range(_MOST_OPCODES):
            opcode = self.read(1)
            if not opcode:
                raise EOFError
            if opcode[0] in _MAKING:
                made += 1
                if made > _MOST_MADE:
                    raise UnreadableFile(f"its pickle makes over {_MOST_MADE:,} objects")
            if opcode == pickle.STOP:
                return self.stack.pop()
            dispatch[opcode[0]](self)
        raise UnreadableFile(f"its pickle has over {_MOST_OPCODES:,} opcodes")

    def find_class(self, module: str, name: str) -> Any:
        """The name, not what it names."""
        return self._globals.setdefault((module, name), Global(module, name))

    def persistent_load(self, pid: Any) -> Any:
        """The id, not what the file keeps under it."""
        return Persistent(pid)

    def get_extension(self, code: int) -> None:
        """Refused: what a code stands for is not in the file."""
        raise UnreadableFile(f"its pickle uses extension code {code}, which no model needs")

    def _instantiate(self, klass: Any, args: list[Any]) -> None:
        self.append(Record(pickle.OBJ, [klass, *args]))

    def _decode_string(self, value: bytes) -> Any:
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return ByteString(value)


def _on(opcode: bytes) -> Callable[[Callable[[_Machine], None]], Callable[[_Machine], None]]:
    def register(load: Callable[[_Machine], None]) -> Callable[[_Machine], None]:
        _Machine.dispatch[opcode[0]] = load
        return load

    return register


def _made_of(opcode: bytes, count: int) -> None:
    def load(machine: _Machine) -> None:
        if len(machine.stack) < count:
            raise IndexError
        parts = machine.stack[-count:]
        machine.stack[-count:] = [Record(opcode, parts)]

    _on(opcode)(load)


_made_of(pickle.REDUCE, 2)
_made_of(pickle.NEWOBJ, 2)
_made_of(pickle.NEWOBJ_EX, 3)


@_on(pickle.EMPTY_SET)
def _load_empty_set(machine: _Machine) -> None:
    machine.append(Record(pickle.EMPTY_SET, []))


@_on(pickle.FROZENSET)
def _load_frozenset(machine: _Machine) -> None:
    members = machine.pop_mark()  # type: ignore[attr-defined]
    machine.append(Record(pickle.FROZENSET, members))


@_on(pickle.BUILD)
def _load_build(machine: _Machine) -> None:
    _record_step(machine, pickle.BUILD, [machine.stack.pop()])


@_on(pickle.APPEND)
def _load_append(machine: _Machine) -> None:
    _extend(machine, [machine.stack.pop()])


@_on(pickle.APPENDS)
def _load_appends(machine: _Machine) -> None:
    _extend(machine, machine.pop_mark())  # type: ignore[attr-defined]


def _extend(machine: _Machine, values: list[Any]) -> None:
    if type(machine.stack[-1]) is list:
        machine.stack[-1].extend(values)
    else:
        _record_step(machine, pickle.APPENDS, values)


@_on(pickle.ADDITEMS)
def _load_additems(machine: _Machine) -> None:
    _record_step(machine, pickle.ADDITEMS, machine.pop_mark())  # type: ignore[attr-defined]


@_on(pickle.SETITEM)
def _load_setitem(machine: _Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _update(machine, [key, value])


@_on(pickle.SETITEMS)
def _load_setitems(machine: _Machine) -> None:
    _update(machine, machine.pop_mark())  # type: ignore[attr-defined]


@_on(pickle.DICT)
def _load_dict(machine: _Machine) -> None:
    values = machine.pop_mark()  # type: ignore[attr-defined]
    machine.append({})
    _update(machine, values)


def _update(machine: _Machine, values: list[Any]) -> None:
    if len(values) % 2:
        raise ValueError("a key without a value")
    target = machine.stack[-1]
    if type(target) is not dict:
        _record_step(machine, pickle.SETITEMS, values)
        return
    for key, value in zip(values[::2], values[1::2], strict=True):
        _refuse_costly_key(key)
        target[key] = value


def _refuse_costly_key(key: Any) -> None:
    """A tuple is hashed part by part, without end where its parts hold each other many times."""
    left, count = [key], 0
    while left:
        part = left.pop()
        count += 1
        if count > _MOST_KEY_PARTS or not isinstance(part, (*_PLAIN_KEYS, tuple)):
            raise ValueError("a key that is no string, number or name")
        if type(part) is tuple:
            left.extend(part[: _MOST_KEY_PARTS + 1])


def _record_step(machine: _Machine, opcode: bytes, values: list[Any]) -> None:
    """Long lists come in batches, which are one step here."""
    target = machine.stack[-1]
    if type(target) is not Record:
        raise ValueError(f"opcode {opcode!r} on a {type(target).__name__}")
    if target.steps and target.steps[-1].opcode == opcode != pickle.BUILD:
        target.steps[-1].values.extend(values)
    else:
        target.steps.append(Step(opcode, values))


_PLAIN_STRING: Any = pickle._Unpickler.dispatch[pickle.STRING[0]]


@_on(pickle.STRING)
def _load_string(machine: _Machine) -> None:
    with warnings.catch_warnings():  # of escapes that Python 2 let pass
        warnings.simplefilter("ignore")
        _PLAIN_STRING(machine)


@_on(pickle.BYTEARRAY8)
def _load_bytearray8(machine: _Machine) -> None:
    length = int.from_bytes(machine.read(8), "little")
    machine.append(bytearray(machine.read(length)))


@_on(pickle.NEXT_BUFFER)
@_on(pickle.READONLY_BUFFER)
def _load_buffer(machine: _Machine) -> None:
    raise UnreadableFile("its pickle needs buffers from outside of the file")
