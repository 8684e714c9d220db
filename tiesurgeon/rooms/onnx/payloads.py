"""Where the numbers of large tensors lie: in a file that is memory-mapped, or in memory."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Array

_BLOCK = 1 << 23


@dataclass(frozen=True)
class Extent:
    """Bytes `start` to `start + length` of a file."""

    path: Path
    start: int
    length: int

    def mapped(self) -> Array:
        """The bytes, memory-mapped and read-only."""
        if self.length == 0:
            return np.empty((0,), np.uint8)
        return np.memmap(self.path, np.uint8, "r", self.start, (self.length,))


@dataclass(frozen=True, eq=False)
class Made:
    """Bytes that an edit made; `load` gives them as a vector of uint8."""

    load: Callable[[], Array]
    length: int

    def mapped(self) -> Array:
        """The bytes."""
        return self.load()


Payload = Extent | Made


@dataclass
class Payloads:
    """The numbers that were left out of a model's protobuf, by number.

    A tensor points at one as at external data, in a location that no file can have guessed.
    `outside` are those that lay in a file beside the model, and will again.
    """

    mark: str = field(default_factory=lambda: f"payload {secrets.token_hex(8)}")
    outside: set[int] = field(default_factory=set)
    _all: list[Payload] = field(default_factory=list)
    _numbers: dict[Payload, int] = field(default_factory=dict)

    def add(self, payload: Payload, *, outside: bool = False) -> int:
        """The payload's number; bytes of a file that were seen before keep theirs."""
        number = self._numbers.setdefault(payload, len(self._all))
        if number == len(self._all):
            self._all.append(payload)
        if outside:
            self.outside.add(number)
        return number

    def copied(self, number: int) -> int:
        """A number for the same bytes, which will be written once more."""
        self._all.append(self._all[number])
        if number in self.outside:
            self.outside.add(len(self._all) - 1)
        return len(self._all) - 1

    def files(self) -> set[Path]:
        """The files that numbers lie in."""
        return {payload.path for payload in self._all if isinstance(payload, Extent)}

    def __getitem__(self, number: int) -> Payload:
        return self._all[number]

    def number_of(self, tensor: Any) -> int | None:
        """Which payload a tensor points at; None if its numbers are its own."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        return int(entries["offset"]) if entries.get("location") == self.mark else None

    def point(self, tensor: Any, number: int) -> None:
        """Makes a tensor point at a payload instead of holding numbers itself."""
        for name in NUMBERS:
            tensor.ClearField(name)
        set_external(tensor, {"location": self.mark, "offset": str(number)})


# The fields of a TensorProto that hold numbers, or say where they are.
NUMBERS = (
    "raw_data float_data int32_data int64_data double_data uint64_data string_data "
    "external_data data_location"
).split()


def set_external(tensor: Any, entries: dict[str, str]) -> None:
    """Says in a tensor where its numbers are."""
    tensor.ClearField("external_data")
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    tensor.data_location = 1  # EXTERNAL


def write_payload(payload: Payload, file: IO[bytes]) -> None:
    """Appends the bytes to a file in blocks; UnreadableFile where their own became shorter."""
    if isinstance(payload, Made):
        array = payload.mapped()
        for start in range(0, payload.length, _BLOCK):
            file.write(array[start : start + _BLOCK].data)
        return
    left = payload.length
    with payload.path.open("rb") as source:
        source.seek(payload.start)
        while left:
            block = source.read(min(left, _BLOCK))
            if not block:
                raise UnreadableFile(f"{payload.path}: became shorter while it was copied")
            file.write(block)
            left -= len(block)
