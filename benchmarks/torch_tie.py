"""`tiesurgeon tie --proof static` of PyTorch files of 2 GB, against `cp` of the same file.

Both are timed until the output lies on the disk: before that, the time depends on how much of
it the system happens to keep in memory.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import TIESURGEON, compare

MAKE = [sys.executable, str(Path(__file__).with_name("large.py"))]
ROUNDS = 7
PROMISED, PROMISED_MB = 1.3, 150
PAIR = ["--pair", "embed.weight", "decoder.weight", "--proof", "static"]
ONTO_DISK = 'rm -f "$0" && "$@" && sync "$0"'


def main() -> None:
    for name in ("model.pt", "model.safetensors"):
        with TemporaryDirectory() as folder:
            source, copied, tied = (str(Path(folder, stem + name)) for stem in ("", "cp.", "tie."))
            subprocess.run([*MAKE, source, "language-model"], check=True)
            cp, tie = compare(
                [
                    ["sh", "-c", ONTO_DISK, copied, "cp", source, copied],
                    ["sh", "-c", ONTO_DISK, tied, *TIESURGEON, "tie", source, *PAIR, "-o", tied],
                ],
                ROUNDS,
            )
            before, after = (Path(path).stat().st_size / 1e9 for path in (source, tied))
        print(f"{name} of {before:.2f} GB, tied {after:.2f}; medians of {ROUNDS} fresh processes")
        print(f"cp                             {cp}")
        print(f"tiesurgeon tie --proof static  {tie}")
        print(f"  it takes {tie.wall / cp.wall:.2f} times as long (promised: {PROMISED})")
        print(f"  and {tie.peak / PROMISED_MB:.2f} of the {PROMISED_MB} MB that are promised")


if __name__ == "__main__":
    main()
