"""`tiesurgeon inspect` against `keras.models.load_model`, on a 40 MB .h5, in fresh processes."""

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import PYTHON, TIESURGEON, compare

ROUNDS = 5
PROMISED_MB = 150

MAKE = """
import sys, keras
ids = keras.Input((None,), dtype="int32")
hidden = keras.layers.LSTM(250, return_sequences=True)(keras.layers.Embedding(19000, 250)(ids))
keras.Model(ids, keras.layers.Dense(19000, activation="softmax")(hidden)).save(sys.argv[1])
"""
LOAD = "import sys, keras; keras.models.load_model(sys.argv[1])"


def main() -> None:
    with TemporaryDirectory() as folder:
        model = Path(folder) / "model.h5"
        subprocess.run([*PYTHON, MAKE, str(model)], check=True, capture_output=True)
        size = model.stat().st_size / 1e6
        values, structure, keras = compare(
            [
                [*TIESURGEON, "inspect", str(model)],
                [*TIESURGEON, "inspect", "--no-values", str(model)],
                [*PYTHON, LOAD, str(model)],
            ],
            ROUNDS,
        )
    print(f"Embedding, LSTM, Dense in an .h5 of {size:.0f} MB; medians of {ROUNDS} fresh processes")
    print(f"tiesurgeon inspect              {values}")
    print(f"tiesurgeon inspect --no-values  {structure}")
    print(f"keras.models.load_model         {keras}")
    print(f"  inspect is {keras.wall / values.wall:.1f} times faster than loading in Keras")
    print(f"  without values {keras.wall / structure.wall:.1f} times")
    print(f"  it takes {values.peak / keras.peak:.2f} times the memory of Keras,")
    print(f"  {values.peak / PROMISED_MB:.2f} of the {PROMISED_MB} MB that are promised")


if __name__ == "__main__":
    main()
