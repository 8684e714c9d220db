"""What every damaged file must get: one line that names it, quickly, in little memory."""

import time
import zipfile
from pathlib import Path

import pytest

from tiesurgeon.errors import TiesurgeonError, UnreadableFile
from tiesurgeon.graph import Graph
from tiesurgeon.rooms.keras.read import read

SECONDS, MEGABYTES = 2.0, 150
FILES = ("char_lm.h5", "keras2_lm.h5", "siamese.keras", "autoencoder.keras")


def attempt(path: Path) -> Graph | None:
    """Reads everything in the file; None if that was refused as it should be."""
    start = time.process_time()
    try:
        graph = read(path).graph
        for variable in graph.variables():
            variable.storage.load()
    except TiesurgeonError as error:
        text = str(error)
        assert "\n" not in text
        assert len(text) < 1000
        assert str(path) in text
        return None
    finally:
        assert time.process_time() - start < SECONDS
    return graph


def peak() -> int:
    """The most memory this process has had, in megabytes."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
    )
    return int(line.split()[1]) >> 10


def refused(path: Path, words: str) -> None:
    """The file is refused, and these words say why."""
    with pytest.raises(UnreadableFile, match=words) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert attempt(path) is None


def archive(path: Path, source: Path, **members: bytes) -> Path:
    """A copy of an archive with some members replaced, compressed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            stem = name.split(".")[0]
            if members.get(stem) != b"":
                new.writestr(name, members.get(stem) or old.read(name))
    return path
