"""`tiesurgeon inspect --no-values` of PyTorch files of 2 GB, against importing PyTorch."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import PYTHON, TIESURGEON, compare

MAKE = [sys.executable, str(Path(__file__).with_name("large.py"))]
ROUNDS = 7
PROMISED_SECONDS, PROMISED_MB = 0.4, 60


def main() -> None:
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("model.pt", "model.safetensors")]
        for path in paths:
            subprocess.run([*MAKE, str(path), "language-model"], check=True)
        size = paths[0].stat().st_size / 1e9
        commands = [[*TIESURGEON, "inspect", "--no-values", str(path)] for path in paths]
        pickled, safe, bare, torch = compare(
            [*commands, [*PYTHON, "import numpy"], [*PYTHON, "import torch"]], ROUNDS
        )
    print(f"files of {size:.1f} GB; medians of {ROUNDS} fresh processes")
    print(f"tiesurgeon inspect --no-values model.pt           {pickled}")
    print(f"tiesurgeon inspect --no-values model.safetensors  {safe}")
    print(f"importing numpy alone                             {bare}")
    print(f"importing PyTorch alone                           {torch}")
    for name, cost in (("model.pt", pickled), ("model.safetensors", safe)):
        print(
            f"  {name}: {cost.wall / PROMISED_SECONDS:.2f} of the {PROMISED_SECONDS} s and "
            f"{cost.peak / PROMISED_MB:.2f} of the {PROMISED_MB} MB that are promised"
        )


if __name__ == "__main__":
    main()
