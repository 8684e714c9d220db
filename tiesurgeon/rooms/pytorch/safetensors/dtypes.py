"""Names of dtypes in a safetensors header, and what numpy calls them."""

from __future__ import annotations

from tiesurgeon.rooms.pytorch.tensors import DTYPES, DType

_NUMPY: dict[str, DType] = {
    "BOOL": DTYPES["bool"],
    "U8": DTYPES["uint8"],
    "I8": DTYPES["int8"],
    "F8_E5M2": DTYPES["float8_e5m2"],
    "F8_E4M3": DTYPES["float8_e4m3fn"],
    "F8_E5M2FNUZ": DTYPES["float8_e5m2fnuz"],
    "F8_E4M3FNUZ": DTYPES["float8_e4m3fnuz"],
    "F8_E8M0": DTYPES["float8_e8m0fnu"],
    "U16": DTYPES["uint16"],
    "I16": DTYPES["int16"],
    "F16": DTYPES["float16"],
    "BF16": DTYPES["bfloat16"],
    "U32": DTYPES["uint32"],
    "I32": DTYPES["int32"],
    "F32": DTYPES["float32"],
    "U64": DTYPES["uint64"],
    "I64": DTYPES["int64"],
    "F64": DTYPES["float64"],
    "C64": DTYPES["complex64"],
}
_WORDS = {dtype: word for word, dtype in _NUMPY.items()}

# Several numbers share bytes; numpy has no such dtype.
PACKED_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}


def bits(word: str) -> int | None:
    """How many bits a number of that dtype has; None for a dtype that the format does not know."""
    dtype = _NUMPY.get(word)
    return PACKED_BITS.get(word) if dtype is None else 8 * dtype.itemsize


def numpy_dtype(word: str) -> DType:
    """The same as a dtype of numpy; bytes for packed numbers."""
    return _NUMPY.get(word, DTYPES["uint8"])


def word(dtype: DType) -> str | None:
    """The header's word for a dtype of numpy, whatever its byte order; None if there is none."""
    return _WORDS.get(dtype.newbyteorder("="))
