"""safetensors files put together by hand, so that they can lie."""

import json
from pathlib import Path
from typing import Any


def entry(start: int, end: int, shape: list[Any], dtype: str = "F32", **more: Any) -> Any:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end], **more}


def written(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    """`header` is an object, or the very text; `length` what the file claims instead."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    claimed = len(text) if length is None else length
    path.write_bytes(claimed.to_bytes(8, "little") + text + data)
    return path
