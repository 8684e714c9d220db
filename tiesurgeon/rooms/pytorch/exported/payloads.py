"""The tensors of an exported program: which bytes of the archive each of them sees, and how."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tiesurgeon.errors import UnreadableFile, UnsupportedFormat
from tiesurgeon.rooms.pytorch.containers.zips import Archive
from tiesurgeon.rooms.pytorch.tensors import DTYPES, Layout, refuse_bad_layout

WEIGHTS = "data/weights/"
CONSTANTS = "data/constants/"
WEIGHTS_CONFIG = f"{WEIGHTS}model_weights_config.json"
CONSTANTS_CONFIG = f"{CONSTANTS}model_constants_config.json"

# schema.ScalarType
_SCALAR_TYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    10: "complex64",
    11: "complex128",
    12: "bool",
    13: "bfloat16",
    28: "uint16",
    29: "float8_e4m3fn",
    30: "float8_e5m2",
    31: "float8_e4m3fnuz",
    32: "float8_e5m2fnuz",
    33: "float8_e8m0fnu",
    34: "uint32",
    35: "uint64",
}
_STRIDED = 7  # schema.Layout


def dtype_name(meta: Any) -> str:
    """The dtype in the entry of a tensor; "" if it is of no known kind."""
    return _SCALAR_TYPES.get(meta.get("dtype", 0), "") if isinstance(meta, dict) else ""


@dataclass(frozen=True)
class Payload:
    """A tensor of the program: the member that holds its bytes, and how it sees them."""

    member: str
    layout: Layout
    is_trained: bool


def read_config(archive: Archive, name: str) -> dict[str, Any]:
    """The entries of a payload config, by the full names of the tensors."""
    found = read_json(archive, name).get("config")
    if not isinstance(found, dict) or not all(isinstance(e, dict) for e in found.values()):
        raise UnreadableFile(f"its member {name!r} lists no tensors")
    return found


def payloads(archive: Archive, folder: str, config: Mapping[str, Any]) -> dict[str, Payload]:
    """The tensors that a config lists; the objects that PyTorch pickled among constants left out.

    Raises UnsupportedFormat for a pickled tensor, UnreadableFile for one that leaves its member.
    """
    found = {}
    for name, entry in config.items():
        meta = entry.get("tensor_meta")
        if meta is None and folder == CONSTANTS:
            continue
        if entry.get("use_pickle"):
            raise UnsupportedFormat(
                f"{name} is a tensor of a class of its own, stored as a pickle, which only "
                "PyTorch can open; export the model with plain tensors"
            )
        found[name] = _payload(archive, folder, name, entry)
    return found


def _payload(archive: Archive, folder: str, name: str, entry: Mapping[str, Any]) -> Payload:
    path, meta = entry.get("path_name"), entry.get("tensor_meta")
    if not isinstance(path, str) or not isinstance(meta, dict):
        raise UnreadableFile(f"the entry of {name} says neither where it lies nor what it is")
    dtype = _SCALAR_TYPES.get(meta.get("dtype", 0))
    if dtype is None or meta.get("layout") != _STRIDED:
        raise UnsupportedFormat(
            f"{name} has dtype number {meta.get('dtype')} and layout number "
            f"{meta.get('layout')}, which this version does not read"
        )
    layout = Layout(
        DTYPES[dtype],
        tuple(_number(name, size) for size in meta.get("sizes", ())),
        tuple(_number(name, stride) for stride in meta.get("strides", ())),
        _number(name, meta.get("storage_offset")),
    )
    member = folder + path
    refuse_bad_layout(name, layout, archive.extent(member))
    is_trained = bool(entry.get("is_param")) and bool(meta.get("requires_grad"))
    return Payload(member, layout, is_trained)


def _number(name: str, found: Any) -> int:
    number = found.get("as_int") if isinstance(found, dict) else None
    if type(number) is not int:
        raise UnreadableFile(f"{name} has a size that is no number")
    return number


def read_json(archive: Archive, name: str) -> dict[str, Any]:
    """A member that is a JSON object; UnreadableFile if it is missing or is none."""
    if name not in archive.members:
        raise UnreadableFile(f"its member {name!r} is missing")
    try:
        found = json.loads(archive.read(name))
    except ValueError as error:
        raise UnreadableFile(f"its member {name!r} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise UnreadableFile(f"its member {name!r} is not a JSON object")
    return found
