"""Masks as we follow them, against those that Keras hangs on its tensors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.rooms.keras.stock import difference, literally, loaded, run, saved
from tiesurgeon.graph import Call, Graph, Value
from tiesurgeon.mapping.mask_rules import Mask
from tiesurgeon.rooms.keras.masks import Untraceable, mask_of, without_stated_masks
from tiesurgeon.rooms.keras.read import read, read_literally
from tiesurgeon.rooms.keras.write import write_h5

L = keras.layers
Build = Callable[[Any], Any]
IDS = np.array([[3, 0, 5, 0, 0], [1, 2, 0, 0, 0]], "int32")

AFTER: dict[str, Build] = {
    "nothing": lambda x: x,
    "Dense": lambda x: L.Dense(2)(x),
    "Dropout": lambda x: L.Dropout(0.5)(x),
    "LayerNormalization": lambda x: L.LayerNormalization()(x),
    "BatchNormalization": lambda x: L.BatchNormalization()(x),
    "Activation": lambda x: L.Activation("tanh")(x),
    "LeakyReLU": lambda x: L.LeakyReLU()(x),
    "TimeDistributed": lambda x: L.TimeDistributed(L.Dense(2))(x),
    "LSTM": lambda x: L.LSTM(2, return_sequences=True)(x),
    "LSTM last": lambda x: L.LSTM(2)(x),
    "LSTM with states": lambda x: L.LSTM(2, return_sequences=True, return_state=True)(x)[0],
    "state of an LSTM": lambda x: L.LSTM(2, return_sequences=True, return_state=True)(x)[1],
    "Bidirectional": lambda x: L.Bidirectional(L.GRU(2, return_sequences=True))(x),
    "Bidirectional last": lambda x: L.Bidirectional(L.GRU(2))(x),
    "RNN": lambda x: L.RNN(L.GRUCell(2), return_sequences=True)(x),
    "Add": lambda x: L.Add()([x, L.Dense(3)(x)]),
    "Multiply of masked and bare": lambda x: L.Multiply()([x, keras.ops.multiply(x, 2.0)]),
    "MultiHeadAttention": lambda x: L.MultiHeadAttention(2, 2)(x, x),
    "Attention": lambda x: L.Attention()([x, x]),
    "Concatenate": lambda x: L.Concatenate()([x, L.Dense(2)(x)]),
    "Conv1D": lambda x: L.Conv1D(2, 3, padding="same")(without_warning(x)),
    "Reshape": lambda x: L.Reshape((3, 5))(without_warning(x)),
    "Masking of it": lambda x: L.Masking(0.25)(x),
    "an operation": lambda x: keras.ops.tanh(x),
    "Rescaling": lambda x: L.Rescaling(0.5)(x),
    "GlobalAveragePooling1D": lambda x: L.GlobalAveragePooling1D()(x),
    "RMSNormalization": lambda x: L.RMSNormalization()(without_warning(x)),
}


def without_warning(x: Any) -> Any:
    """Keras warns where a layer loses a mask: an operation loses it in silence."""
    return keras.ops.multiply(x, 1.0)


def table(**options: Any) -> Any:
    return L.Embedding(11, 3, mask_zero=True, **options)


@pytest.mark.parametrize("name", AFTER)
def test_masks_are_those_of_keras(name: str, tmp_path: Path) -> None:
    given = keras.Input((5,), dtype="int32")
    model = keras.Model(given, AFTER[name](table()(given)))
    graph = read(saved(model, tmp_path / "model.keras")).graph
    true = getattr(model(IDS), "_keras_mask", None)
    found = mask_of(graph, graph.outputs)
    if true is None:
        assert found is None
    else:
        assert found is not None
        np.testing.assert_array_equal(computed(graph, model, found), true)


def computed(graph: Graph, model: Any, mask: Mask) -> Any:
    """The mask as an array, by what it says of itself."""
    value = mask.parts[0]
    tensor = model.get_layer(graph.call_by_id[value.call].layer).output
    array = np.asarray(keras.Model(model.input, tensor)(IDS))
    if mask.kind == "ids":
        return array != 0
    assert mask.kind == "steps"
    return np.any(array != mask.parts[1], axis=-1)


@keras.saving.register_keras_serializable(package="tests")
class Unknown(keras.Layer):
    """A layer that may do anything with a mask."""

    supports_masking = True

    def call(self, x: Any) -> Any:
        return x


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_a_custom_layer_hides_what_becomes_of_a_mask(tmp_path: Path) -> None:
    given = keras.Input((5,), dtype="int32")
    model = keras.Model(given, L.Dense(2, name="d")(Unknown(name="odd")(table()(given))))
    graph = read(saved(model, tmp_path / "model.keras")).graph
    with pytest.raises(Untraceable, match="odd"):
        mask_of(graph, Value("d"))
    bare = L.Embedding(11, 3)
    model = keras.Model(given, Unknown(name="odd")(bare(given)))
    graph = read(saved(model, tmp_path / "model.keras")).graph
    assert mask_of(graph, Value("odd")) is None


def masked_lm() -> Any:
    given = keras.Input((5,), dtype="int32")
    y = L.LSTM(7, return_sequences=True)(table()(given))
    y = L.Bidirectional(L.GRU(2, return_sequences=True))(y)
    return keras.Model(given, L.TimeDistributed(L.Dense(11))(y))


def test_masks_that_keras_wrote_out_are_not_kept(tmp_path: Path) -> None:
    model = masked_lm()
    path = saved(model, tmp_path / "model.h5")
    literal, found = literally(path), read(path)
    assert any(layer.op == "NotEqual" for layer in literal.layers)
    assert not any(layer.op == "NotEqual" for layer in found.graph.layers)
    assert not any("mask" in call.kwargs for call in found.graph.calls)
    write_h5(found.graph, tmp_path / "out.h5", provenance={})
    again = loaded(tmp_path / "out.h5")
    assert difference(run(again, found.graph), run(model, found.graph)) == 0


def test_masks_that_say_something_else_are_kept(tmp_path: Path) -> None:
    one, two = (keras.Input((5,), dtype="int32", name=name) for name in ("one", "two"))
    other = keras.ops.not_equal(two, 0)
    y = L.LSTM(7, name="rnn")(table()(one), mask=other)
    model = keras.Model([one, two], y)
    found = read_literally(saved(model, tmp_path / "model.keras")).graph
    kept: Call = without_stated_masks(found).call_by_id["rnn"]
    assert isinstance(kept.kwargs["mask"], Value)
