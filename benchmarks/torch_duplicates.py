"""Looking for equal matrices in a PyTorch file of 2 GB, against reading it from the page cache."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import PYTHON, compare

MAKE = [sys.executable, str(Path(__file__).with_name("large.py"))]
ROUNDS = 5
PROMISED, PROMISED_MB = 0.5, 150

READ = """
import sys
block = bytearray(1 << 20)
with open(sys.argv[1], "rb", buffering=0) as file:
    while file.readinto(block):
        pass
"""
START = """
import sys
from pathlib import Path
from tiesurgeon import find
from tiesurgeon.rooms.pytorch.read import read
graph = read(Path(sys.argv[1])).graph
"""
FIND = "assert len(list(find.duplicates(graph))) == 16\n"


def main() -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        subprocess.run([*MAKE, str(path), "pairs"], check=True)
        size = path.stat().st_size / 1e9
        started, read, graph, found = compare(
            [[*PYTHON, code, str(path)] for code in ("pass", READ, START, START + FIND)], ROUNDS
        )
    reading = size / (read.wall - started.wall)
    finding = size / (found.wall - graph.wall)
    print(f"a file of {size:.1f} GB, all of it in equal pairs; medians of {ROUNDS} fresh processes")
    print(f"starting Python              {started}")
    print(f"reading the file             {read}   {reading:.1f} GB/s")
    print(f"reading the structure        {graph}")
    print(f"looking for equal matrices   {found}   {finding:.1f} GB/s")
    print(f"  {finding / reading:.2f} times the speed of reading (promised: {PROMISED}),")
    print(f"  {found.peak / PROMISED_MB:.2f} of the {PROMISED_MB} MB that are promised")


if __name__ == "__main__":
    main()
