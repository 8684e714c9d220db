"""Writes a model: numbers that lay in the file in it again, those that lay beside it beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from tiesurgeon.rooms.onnx import wire
from tiesurgeon.rooms.onnx.payloads import Payloads, set_external, write_payload
from tiesurgeon.rooms.onnx.places import tensors

_MOST = (1 << 31) - (1 << 20)  # protobuf holds 2 GB; some room for the rest
# Large tensors start where every system can map them, as onnx_ir writes them.
_LARGE, _PAGE, _SMALL_STEP = 1 << 20, 1 << 16, 64


def data_name(name: str) -> str:
    """What the file of external data is called, beside a model of that name."""
    return f"{name}.data"


def write_model(model: Any, payloads: Payloads, path: Path, metadata: Mapping[str, str]) -> None:
    """Writes the model to `path`, and its external data, if any, beside it."""
    copy = type(model)()
    copy.CopyFrom(model)
    _set_metadata(copy, metadata)
    outside = _outside(copy, payloads)
    if outside:
        with path.with_name(data_name(path.name)).open("xb") as file:
            _write_data(copy, payloads, outside, path, file)
    pieces = list(wire.whole(copy.SerializeToString(), payloads))
    with path.open("xb") as file:
        wire.write(pieces, payloads, file)


def write_outline(model: Any, payloads: Payloads, path: Path) -> None:
    """Writes the model with zeros for its large tensors, in a sparse file that takes no room."""
    copy = type(model)()
    copy.CopyFrom(model)
    zeros = path.with_name(data_name(path.name))
    longest = 0
    for tensor in tensors(copy):
        number = payloads.number_of(tensor)
        if number is not None:
            length = payloads[number].length
            longest = max(longest, length)
            set_external(tensor, {"location": zeros.name, "offset": "0", "length": str(length)})
    with zeros.open("xb") as file:
        file.truncate(longest)
    path.write_bytes(copy.SerializeToString())


def _set_metadata(model: Any, metadata: Mapping[str, str]) -> None:
    kept = {entry.key: entry.value for entry in model.metadata_props}
    del model.metadata_props[:]
    for key, value in {**kept, **metadata}.items():
        model.metadata_props.add(key=key, value=value)


def _outside(model: Any, payloads: Payloads) -> set[int]:
    """The payloads that go into the other file: all, where the model would be too large."""
    numbers = [n for tensor in tensors(model) for n in [payloads.number_of(tensor)]]
    used = {number for number in numbers if number is not None}
    inside = [n for n in numbers if n is not None and n not in payloads.outside]
    if sum(payloads[number].length for number in inside) + model.ByteSize() > _MOST:
        return used
    return used & payloads.outside


def _write_data(
    model: Any, payloads: Payloads, outside: set[int], path: Path, file: IO[bytes]
) -> None:
    places: dict[int, int] = {}
    end = 0
    for tensor in tensors(model):
        number = payloads.number_of(tensor)
        if number is None or number not in outside:
            continue
        payload = payloads[number]
        if number not in places:
            step = _PAGE if payload.length >= _LARGE else _SMALL_STEP
            start = -(-end // step) * step
            file.write(bytes(start - end))
            write_payload(payload, file)
            places[number], end = start, start + payload.length
        entries = {"offset": str(places[number]), "length": str(payload.length)}
        set_external(tensor, {"location": data_name(path.name), **entries})
