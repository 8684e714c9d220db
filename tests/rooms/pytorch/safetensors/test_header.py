"""What a header claims is believed only where the file bears it out."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.rooms.pytorch.safetensors.files import entry, written
from tiesurgeon.errors import UnreadableFile
from tiesurgeon.rooms.pytorch.safetensors import read_safetensors

BAD: dict[str, tuple[Any, bytes, str]] = {
    "not JSON": (b"{'a': 1}  ", b"", "not JSON"),
    "not UTF-8": (b'{"\xff": 1}', b"", "not JSON"),
    "a list": ([], b"", "not a JSON object"),
    "NaN": (b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 4]}}', b"1234", "NaN"),
    "too deep": (b"[" * 200_000 + b"]" * 200_000, b"", "nested too deeply"),
    "nothing but brackets": (b"[" + b"[]," * 3_000_000 + b"[]]", b"", "more values than"),
    "a name twice": (
        b'{"a": %s, "a": %s}' % (2 * (json.dumps(entry(0, 4, [1])).encode(),)),
        b"1234",
        "'a' twice",
    ),
    "a key of an entry twice": (
        b'{"a": {"dtype": "F32", "dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
        b"1234",
        "'dtype' twice",
    ),
    "no dtype": ({"a": {"shape": [1], "data_offsets": [0, 4]}}, b"1234", "not described"),
    "a key too many": ({"a": entry(0, 4, [1], code="x")}, b"1234", "not described"),
    "unknown dtype": ({"a": entry(0, 4, [1], "F31")}, b"1234", "unknown dtype 'F31'"),
    "dtype a list": ({"a": entry(0, 4, [1], ["F32"])}, b"1234", "unknown dtype"),  # type: ignore[arg-type]
    "negative shape": ({"a": entry(0, 4, [-1, -1])}, b"1234", "not whole numbers"),
    "fractional shape": ({"a": entry(0, 4, [1.0])}, b"1234", "not whole numbers"),
    "shape of truth": ({"a": entry(0, 4, [True])}, b"1234", "not whole numbers"),
    "shape too large": ({"a": entry(0, 4, [1 << 40, 1 << 40])}, b"1234", "offsets give it 4"),
    "too many dimensions": ({"a": entry(0, 4, [1] * 65)}, b"1234", "65 dimensions"),
    "offsets backwards": ({"a": entry(4, 0, [1])}, b"1234", "offsets give it -4"),
    "half a byte": ({"a": entry(0, 1, [3], "F4")}, b"1", "takes 1 bytes"),
    "overlap": ({"a": entry(0, 4, [1]), "b": entry(2, 6, [1])}, b"123456", "overlaps"),
    "same bytes": ({"a": entry(0, 4, [1]), "b": entry(0, 4, [1])}, b"1234", "overlaps"),
    "gap": ({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, b"123456789012", "leaves a gap"),
    "beyond the file": ({"a": entry(0, 4000, [1000])}, b"1234", "cut short"),
    "bytes left over": ({"a": entry(0, 4, [1])}, b"12345", "1 bytes after its last tensor"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, b"", "does not map names to texts"),
    "metadata a list": ({"__metadata__": []}, b"", "does not map names to texts"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_header_that_lies(tmp_path: Path, name: str) -> None:
    header, data, expected = BAD[name]
    path = written(tmp_path / "m.safetensors", header, data)

    with pytest.raises(UnreadableFile) as error:
        read_safetensors(path)

    assert str(error.value).startswith(f"{path}: ")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("length", [3, 1 << 20, 1 << 63])
def test_a_header_longer_than_the_file(tmp_path: Path, length: int) -> None:
    path = written(tmp_path / "m.safetensors", b"{}", length=length)
    with pytest.raises(UnreadableFile, match=f"claims a header of {length:,} bytes and has 2"):
        read_safetensors(path)


def test_a_header_beyond_the_limit(tmp_path: Path) -> None:
    path = written(tmp_path / "m.safetensors", b"{}", length=100_000_001)
    with path.open("ab") as file:
        file.truncate(200_000_000)  # no such bytes on the disk
    with pytest.raises(UnreadableFile, match="allowed are 100,000,000"):
        read_safetensors(path)


@pytest.mark.parametrize("size", range(8))
def test_a_file_shorter_than_a_length(tmp_path: Path, size: int) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"\0" * size)
    with pytest.raises(UnreadableFile, match="not a safetensors file"):
        read_safetensors(path)


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_a_hostile_header_takes_little_memory(tmp_path: Path) -> None:
    written(tmp_path / "m.safetensors", b"[" + b"[]," * 30_000_000 + b"[]]")
    code = """
import resource, sys
from pathlib import Path
from tiesurgeon.errors import UnreadableFile
from tiesurgeon.rooms.pytorch.safetensors import read_safetensors
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_safetensors(Path(sys.argv[1]))
except UnreadableFile:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "m.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150_000  # KB: the header itself has 90,000
