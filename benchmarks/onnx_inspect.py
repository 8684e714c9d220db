"""`tiesurgeon inspect` and `tie` on a 1 GB ONNX model with external data, in fresh processes."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import PYTHON, TIESURGEON, compare

ROUNDS = 5
ROWS = 262_144  # with a width of 512: twice 537 MB
PROMISED_SECONDS, PROMISED_MB = 1.0, 200
MAKE = Path(__file__).with_name("onnx_models.py")
LOAD = "import sys, onnx; onnx.load(sys.argv[1])"


def main() -> None:
    with TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        subprocess.run([sys.executable, MAKE, model, str(ROWS)], check=True)
        size = model.with_name("model.onnx.data").stat().st_size / 1e6
        tie = ["tie", str(model), "--pair", "embed", "head", "--proof", "static", "--force"]
        structure, values, tying, loading = compare(
            [
                [*TIESURGEON, "inspect", "--no-values", str(model)],
                [*TIESURGEON, "inspect", str(model)],
                [*TIESURGEON, *tie],
                [*PYTHON, LOAD, str(model)],
            ],
            ROUNDS,
        )
    print(f"Gather and MatMul over {size:,.0f} MB; medians of {ROUNDS} fresh processes")
    print(f"tiesurgeon inspect --no-values   {structure}")
    print(f"tiesurgeon inspect               {values}")
    print(f"tiesurgeon tie --proof static    {tying}")
    print(f"onnx.load                        {loading}")
    print(f"  --no-values takes {structure.wall / PROMISED_SECONDS:.2f} of the second and")
    print(f"  {structure.peak / PROMISED_MB:.2f} of the {PROMISED_MB} MB that are promised")


if __name__ == "__main__":
    main()
