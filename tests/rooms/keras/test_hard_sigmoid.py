"""Keras 2's hard_sigmoid: converted files give what Keras 2 gave, not what Keras 3 would."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras

from tiesurgeon import operations
from tiesurgeon.errors import UnsupportedFormat

layers = tf_keras.layers
pytestmark = pytest.mark.usefixtures("proof_here")


def saved(layer: Any, path: Path, shape: tuple[int, ...] = (5, 3)) -> tuple[Any, Any]:
    """A model of one layer with weights large enough to reach both ends of the ramp."""
    model = tf_keras.Sequential([tf_keras.Input(shape), layer])
    rng = np.random.default_rng(0)
    model.set_weights([rng.standard_normal(w.shape) * 2 for w in model.get_weights()])
    model.save(path, save_format="h5")
    x = rng.standard_normal((2, *shape)).astype("float32") * 3
    return x, np.asarray(model(x))


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.LSTM(7, recurrent_activation="hard_sigmoid"),
        lambda: layers.GRU(7, recurrent_activation="hard_sigmoid", return_sequences=True),
        lambda: layers.GRU(7, recurrent_activation="hard_sigmoid", reset_after=False),
        lambda: layers.GRU(7, activation="hard_sigmoid"),
        lambda: layers.SimpleRNN(7, activation="hard_sigmoid"),
        lambda: layers.Bidirectional(layers.LSTM(7, recurrent_activation="hard_sigmoid")),
        lambda: layers.Dense(7, activation="hard_sigmoid"),
        lambda: layers.TimeDistributed(layers.Dense(7, activation="hard_sigmoid")),
        lambda: layers.Conv1D(7, 2, activation="hard_sigmoid"),
        lambda: layers.Activation("hard_sigmoid"),
    ],
)
def test_the_function_stays_that_of_keras_2(layer: Any, tmp_path: Path) -> None:
    x, expected = saved(layer(), tmp_path / "old.h5")
    for to in ("keras", "h5"):
        operations.convert(tmp_path / "old.h5", to, output=tmp_path / f"new.{to}")
        again = keras.models.load_model(tmp_path / f"new.{to}", compile=False)
        np.testing.assert_allclose(again(x), expected, atol=2e-6)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_where_no_weight_can_carry_the_factor_it_is_refused(tmp_path: Path) -> None:
    saved(layers.LSTM(7, activation="hard_sigmoid"), tmp_path / "old.h5")
    with pytest.raises(UnsupportedFormat, match=r"hard_sigmoid of Keras 2.*--to torch"):
        operations.convert(tmp_path / "old.h5", "keras", output=tmp_path / "new.keras")
    assert not (tmp_path / "new.keras").exists()
