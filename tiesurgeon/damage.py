"""Whatever a damaged or deceitful file makes a reader raise becomes one line that names it."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tiesurgeon.errors import TiesurgeonError, UnreadableFile

# What h5py, zipfile, json and pickle raise over files that are damaged or made to deceive.
DAMAGE = (
    OSError,
    RuntimeError,
    KeyError,
    IndexError,
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    MemoryError,
    OverflowError,
    AssertionError,
    NotImplementedError,
    SystemError,
    struct.error,
    zlib.error,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


@contextmanager
def blamed(path: Path, kind: str) -> Iterator[None]:
    """Turns whatever damage causes into one line that names the file; `kind` as in "a Keras model".

    Errors raised on purpose keep their class and get the path in front.
    """
    try:
        yield
    except TiesurgeonError as error:
        raise type(error)(_line(path, error)) from None
    except RecursionError:
        raise UnreadableFile(f"{path}: damaged, or nested too deeply to be a model") from None
    except DAMAGE as error:
        raise UnreadableFile(_line(path, error, f"cannot be read as {kind}: ")) from None


def _line(path: Path, error: Any, prefix: str = "") -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    text = text if len(text) <= 500 else f"{text[:500]}..."
    return text if text.startswith(f"{path}: ") else f"{path}: {prefix}{text}"
