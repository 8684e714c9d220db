"""Hundreds of damaged files: each is read, or refused in one line, quickly and in little memory."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.rooms.pytorch.containers.building import Entry, archive, members
from tiesurgeon.errors import UnreadableFile
from tiesurgeon.rooms.pytorch.containers import open_container

MEGABYTES = 100  # beyond what Python and numpy need

DAMAGE = """
import random, sys
from pathlib import Path
from tiesurgeon.damage import blamed
from tiesurgeon.errors import TiesurgeonError
from tiesurgeon.rooms.pytorch.containers import open_container

source, path, keys = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split()
data, tries, rng = source.read_bytes(), 400, random.Random(24)

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if "VmHWM" in line).split()[1]) >> 10

def attempt(changed):
    path.write_bytes(changed)
    try:
        with blamed(path, "a PyTorch file"):
            container = open_container(path)
            for name in container.names:
                container.read(name)
            container.extents(dict.fromkeys(keys, 4))
            container.write(path.with_suffix(".new"), container.pickle, keys, {}, {})
    except TiesurgeonError as error:
        assert chr(10) not in str(error) and str(path) in str(error) and len(str(error)) < 1000
        return False
    return True

assert attempt(data)
before = peak() if sys.platform == "linux" else 0
for number in range(tries):
    assert not attempt(data[: rng.randrange(1, len(data))])
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        near = rng.randrange(min(1500, len(data)))
        place = rng.choice((rng.randrange(len(data)), near, len(data) - 1 - near))
        width = rng.choice((1, 1, 2, 4, 8))
        value = rng.choice((rng.randrange(256**width), 256**width - 1, 0))
        changed[place : place + width] = value.to_bytes(width, "little")
    attempt(bytes(changed[: len(data)]))
print(peak() - before if sys.platform == "linux" else 0)
"""


@pytest.mark.parametrize("is_zip", [True, False])
def test_cut_files_and_wrong_bytes(tmp_path: Path, root: Path, is_zip: bool) -> None:
    source = tmp_path / "m.pt"
    tensors = {name: torch.ones(11, 3) for name in "abc"}
    torch.save(tensors, source, _use_new_zipfile_serialization=is_zip)
    keys = (
        ["0", "1", "2"] if is_zip else [str(t.untyped_storage()._cdata) for t in tensors.values()]
    )
    paths = [str(source), str(tmp_path / "damaged.pt"), " ".join(keys)]
    done = subprocess.run(
        [sys.executable, "-c", DAMAGE, *paths],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=root,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < MEGABYTES


def test_pytorch_reads_the_same_members(tmp_path: Path) -> None:
    """Or refuses the archive: what is inspected must be what is loaded."""
    rng, path, compared = random.Random(24), tmp_path / "m.pt", 0
    data = archive([*members(), Entry(b"m/code/a.py", b"class A:\n" * 9, method=8)], wide={})
    start = data.index(b"PK\1\2")
    for _ in range(1500):
        changed = bytearray(data)
        place = rng.choice((rng.randrange(start), rng.randrange(start, len(data))))
        width = rng.choice((1, 1, 2, 4))
        value = rng.choice((rng.randrange(256**width), 256**width - 1, 0x20, 0x10))
        changed[place : place + width] = value.to_bytes(width, "little")
        path.write_bytes(changed[: len(data)])
        try:
            container = open_container(path)
            ours = {name: container.read(name) for name in container.names}
            theirs = torch._C.PyTorchFileReader(str(path))
            assert {name: theirs.get_record(name) for name in ours} == ours
        except (UnreadableFile, RuntimeError):
            continue
        compared += 1
    assert compared > 50
