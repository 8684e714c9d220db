"""Writing a safetensors file one tensor at a time, so that a large model never lies in memory.

The format: the length of the header as 8 bytes (little-endian), the header as JSON, padded
with spaces to a multiple of 8, then the numbers of every tensor, end to end.
https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.graph import Storage

_DTYPES = {
    "bool": "BOOL",
    "int8": "I8",
    "uint8": "U8",
    "int16": "I16",
    "uint16": "U16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "uint32": "U32",
    "float32": "F32",
    "int64": "I64",
    "uint64": "U64",
    "float64": "F64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}


def save(path: Path, tensors: Mapping[str, Storage], metadata: Mapping[str, str]) -> None:
    """Writes the tensors with their names, loading one after the other.

    Raises UnsupportedFormat for a dtype that the format does not have.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    # Wide numbers first, so that each tensor is aligned to its own width.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    end = 0
    for name, storage in ordered:
        dtype = _DTYPES.get(storage.dtype.name)
        if dtype is None:
            raise UnsupportedFormat(f"{name}: safetensors has no dtype {storage.dtype.name}")
        start, end = end, end + storage.nbytes
        header[name] = {"dtype": dtype, "shape": storage.shape, "data_offsets": (start, end)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, storage in ordered:
            array = np.ascontiguousarray(storage.load()).reshape(-1)
            file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).view(np.uint8).data)
