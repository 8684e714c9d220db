"""Every variable of every built-in class: its role, value and trainability, in both formats."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.rooms.keras.stock import (
    assert_same_weights,
    check_views,
    difference,
    literally,
    loaded,
    randomised,
    rewritten,
    run,
    saved,
)
from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.graph import Layer
from tiesurgeon.rooms.keras.read import read_literally
from tiesurgeon.rooms.keras.variables import PLACES, is_known, snake_case

L = keras.layers
Build = Callable[[], Any]


def vectors(*shape: int) -> Any:
    return keras.Input(shape or (5, 3))


def ids() -> Any:
    return keras.Input((5,), dtype="int32")


def after(layer: Any, given: Any) -> Any:
    return keras.Model(given, layer(given))


def twice(layer: Any, given: Any) -> Any:
    return keras.Model(given, layer(given, given))


def both(layer: Any, given: Any) -> Any:
    return keras.Model(given, layer([given, given]))


CELLS = [
    lambda: L.SimpleRNNCell(2),
    lambda: L.LSTMCell(3),
    lambda: L.GRUCell(2, reset_after=False),
    lambda: L.LSTMCell(5, use_bias=False),
]
CASES: dict[str, Build] = {
    "Embedding": lambda: after(L.Embedding(11, 3), ids()),
    "ReversibleEmbedding": lambda: after(L.ReversibleEmbedding(11, 3), ids()),
    "ReversibleEmbedding untied": lambda: after(
        L.ReversibleEmbedding(11, 3, tie_weights=False), ids()
    ),
    "Dense": lambda: after(L.Dense(2), vectors()),
    "Dense without bias": lambda: after(L.Dense(2, use_bias=False), vectors()),
    "EinsumDense": lambda: after(L.EinsumDense("abc,cd->abd", (None, 2), bias_axes="d"), vectors()),
    "EinsumDense without bias": lambda: after(
        L.EinsumDense("abc,cde->abde", (None, 2, 7)), vectors()
    ),
    "Conv1D": lambda: after(L.Conv1D(2, 3), vectors()),
    "Conv2D": lambda: after(L.Conv2D(2, (3, 2), use_bias=False), vectors(7, 5, 3)),
    "Conv3D": lambda: after(L.Conv3D(2, (3, 2, 1)), vectors(7, 5, 3, 2)),
    "Conv2D in groups": lambda: after(L.Conv2D(4, 3, groups=2), vectors(7, 5, 2)),
    "DepthwiseConv1D": lambda: after(L.DepthwiseConv1D(2, depth_multiplier=5), vectors()),
    "DepthwiseConv2D": lambda: after(L.DepthwiseConv2D((2, 3)), vectors(7, 5, 3)),
    "SeparableConv1D": lambda: after(L.SeparableConv1D(7, 2, depth_multiplier=2), vectors()),
    "SeparableConv2D": lambda: after(L.SeparableConv2D(7, 2, use_bias=False), vectors(7, 5, 3)),
    "Conv1DTranspose": lambda: after(L.Conv1DTranspose(7, 2), vectors()),
    "Conv2DTranspose": lambda: after(L.Conv2DTranspose(7, 2), vectors(7, 5, 3)),
    "Conv3DTranspose": lambda: after(L.Conv3DTranspose(2, 2), vectors(3, 2, 2, 3)),
    "BatchNormalization": lambda: after(L.BatchNormalization(), vectors()),
    "BatchNormalization bare": lambda: after(
        L.BatchNormalization(scale=False, center=False), vectors()
    ),
    "BatchNormalization renorm": lambda: after(L.BatchNormalization(renorm=True), vectors()),
    "BatchNormalization synchronized": lambda: after(L.BatchNormalization(axis=1), vectors()),
    "LayerNormalization": lambda: after(L.LayerNormalization(), vectors()),
    "LayerNormalization beta": lambda: after(L.LayerNormalization(scale=False), vectors()),
    "LayerNormalization two axes": lambda: after(L.LayerNormalization(axis=[1, 2]), vectors()),
    "GroupNormalization": lambda: after(L.GroupNormalization(3), vectors()),
    "RMSNormalization": lambda: after(L.RMSNormalization(), vectors()),
    "Normalization": lambda: after(L.Normalization(), vectors()),
    "Normalization given": lambda: after(L.Normalization(mean=1.0, variance=2.0), vectors()),
    "PReLU": lambda: after(L.PReLU(shared_axes=[1]), vectors()),
    "Attention": lambda: both(L.Attention(use_scale=True, score_mode="concat"), vectors()),
    "AdditiveAttention": lambda: both(L.AdditiveAttention(), vectors()),
    "AdditiveAttention plain": lambda: both(L.AdditiveAttention(use_scale=False), vectors()),
    "MultiHeadAttention": lambda: twice(L.MultiHeadAttention(2, 5, value_dim=7), vectors()),
    "MultiHeadAttention without bias": lambda: twice(
        L.MultiHeadAttention(2, 5, use_bias=False, output_shape=(2,)), vectors()
    ),
    "MultiHeadAttention gated": lambda: twice(L.MultiHeadAttention(2, 5, use_gate=True), vectors()),
    "GroupQueryAttention": lambda: twice(L.GroupQueryAttention(5, 4, 2), vectors()),
    "GroupQueryAttention gated": lambda: twice(
        L.GroupQueryAttention(5, 4, 2, use_gate=True), vectors()
    ),
    "SimpleRNN": lambda: after(L.SimpleRNN(2, use_bias=False), vectors(2, 3)),
    "LSTM": lambda: after(L.LSTM(2, return_sequences=True), vectors(2, 3)),
    "LSTM stateful": lambda: after(L.LSTM(2, stateful=True), keras.Input(batch_shape=(2, 2, 3))),
    "GRU": lambda: after(L.GRU(2), vectors(2, 3)),
    "GRU reset before": lambda: after(L.GRU(2, reset_after=False), vectors(2, 3)),
    "ConvLSTM1D": lambda: after(L.ConvLSTM1D(2, 3), vectors(2, 5, 3)),
    "ConvLSTM2D": lambda: after(L.ConvLSTM2D(2, 3), vectors(2, 5, 5, 3)),
    "ConvLSTM3D": lambda: after(L.ConvLSTM3D(2, 2), vectors(2, 3, 3, 2, 3)),
    "RNN": lambda: after(L.RNN(L.GRUCell(2)), vectors(2, 3)),
    "SimpleRNNCell": lambda: after(L.RNN(L.SimpleRNNCell(2)), vectors(2, 3)),
    "LSTMCell": lambda: after(L.RNN(L.LSTMCell(2)), vectors(2, 3)),
    "GRUCell": lambda: after(L.RNN(L.GRUCell(2, use_bias=False)), vectors(2, 3)),
    "StackedRNNCells": lambda: after(L.RNN([cell() for cell in CELLS]), vectors(2, 3)),
    "TimeDistributed": lambda: after(L.TimeDistributed(L.Dense(2)), vectors()),
    "Bidirectional": lambda: after(L.Bidirectional(L.LSTM(2)), vectors(2, 3)),
    "Bidirectional uneven": lambda: after(
        L.Bidirectional(L.GRU(2), backward_layer=L.GRU(2, use_bias=False, go_backwards=True)),
        vectors(),
    ),
    "SpectralNormalization": lambda: after(L.SpectralNormalization(L.Dense(2)), vectors()),
    "SpectralNormalization of a table": lambda: after(
        L.SpectralNormalization(L.Embedding(11, 3)), ids()
    ),
    "SpectralNormalization in steps": lambda: after(
        L.TimeDistributed(L.SpectralNormalization(L.Conv1D(2, 2))), vectors(2, 5, 3)
    ),
}
WITHOUT_SCIPY = {"STFTSpectrogram"}  # needs scipy to be built


def test_every_class_has_a_case() -> None:
    tried = {name.split()[0] for name in CASES}
    assert PLACES.keys() - tried == WITHOUT_SCIPY


@pytest.mark.parametrize("name", CASES)
def test_each_variable_is_read_and_written_back(name: str, tmp_path: Path) -> None:
    model = randomised(CASES[name]())
    for frozen in (True, False):
        for layer in model.layers:
            layer.trainable = not frozen
        check_views(model, literally(saved(model, tmp_path / "model.h5")))
        found = read_literally(saved(model, tmp_path / "model.keras"))
        check_views(model, found.graph)
        for suffix in (".keras", ".h5"):
            again = loaded(rewritten(found, tmp_path / f"out{suffix}"))
            assert_same_weights(again, model)
    assert difference(run(again, found.graph), run(model, found.graph)) == 0


def test_file_names_of_all_layers_are_those_of_keras() -> None:
    for name in dir(L):
        layer = getattr(L, name)
        if isinstance(layer, type) and issubclass(layer, keras.Layer):
            made = keras.src.utils.naming.to_snake_case(layer.__name__)
            assert snake_case(layer.__name__) == made


LORA: dict[str, Build] = {
    "Dense": lambda: after(L.Dense(7, name="low"), vectors()),
    "EinsumDense": lambda: after(
        L.EinsumDense("abc,cd->abd", (None, 7), bias_axes="d", name="low"), vectors()
    ),
    "Embedding": lambda: after(L.Embedding(11, 5, name="low"), ids()),
    "Conv1D": lambda: after(L.Conv1D(7, 3, name="low"), vectors()),
}


@pytest.mark.parametrize("name", LORA)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_lora_is_added_to_the_matrix(name: str, suffix: str, tmp_path: Path) -> None:
    model = LORA[name]()
    model.get_layer("low").enable_lora(2, lora_alpha=3)
    randomised(model)
    found = read_literally(saved(model, tmp_path / f"model{suffix}"))
    assert "lora_rank" not in found.graph.layer("low").config
    assert "LoRA" in found.notes[0]
    assert all(view.variable.trainable for view in found.graph.layer("low").views)
    for written in (".keras", ".h5"):
        again = loaded(rewritten(found, tmp_path / f"out{written}"))
        gap = difference(run(again, found.graph), run(model, found.graph))
        assert gap < 1e-6


def quantised(model: Any, mode: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an InputLayer has nothing to quantise
        model.quantize(mode)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_int8_weights_keep_their_scales(suffix: str, tmp_path: Path) -> None:
    given = ids()
    model = randomised(keras.Model(given, L.Dense(7)(L.Embedding(11, 5)(given))))
    quantised(model, "int8")
    found = read_literally(saved(model, tmp_path / f"model{suffix}"))
    check_views(model, found.graph)
    for written in (".keras", ".h5"):
        again = loaded(rewritten(found, tmp_path / f"out{written}"))
        assert difference(run(again, found.graph), run(model, found.graph)) == 0


@pytest.mark.parametrize("mode", ["int4", "float8"])
def test_other_quantisations_are_kept_as_found(mode: str, tmp_path: Path) -> None:
    model = randomised(after(L.Dense(7), vectors()))
    quantised(model, mode)
    found = read_literally(saved(model, tmp_path / "model.keras"))
    again = loaded(rewritten(found, tmp_path / "out.keras"))
    assert difference(run(again, found.graph), run(model, found.graph)) == 0
    with pytest.raises(UnsupportedFormat, match=r"write \.keras instead"):
        rewritten(found, tmp_path / "out.h5")


WORDS = ["the", "cat", "sat"]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_adapted_words_reach_every_format(suffix: str, tmp_path: Path) -> None:
    lookup = L.StringLookup()
    lookup.adapt(WORDS)
    given = keras.Input((1,), dtype="string")
    model = keras.Model(given, lookup(given))
    found = read_literally(saved(model, tmp_path / "model.keras"))
    again = loaded(rewritten(found, tmp_path / f"out{suffix}"))
    asked = keras.ops.convert_to_tensor([["cat"], ["dog"], ["the"]])
    np.testing.assert_array_equal(again(asked), model(asked))


def test_adapted_numbers_and_shapes_are_kept(tmp_path: Path) -> None:
    normal, bins = L.Normalization(name="normal"), L.Discretization(num_bins=3)
    normal.adapt(np.arange(30.0).reshape(10, 3))
    bins.adapt(np.arange(9.0))
    given = keras.Input((3,))
    model = keras.Model(given, [normal(given), bins(given), L.Hashing(5)(L.Rescaling(2)(given))])
    found = read_literally(saved(model, tmp_path / "model.keras"))
    expected = run(model, found.graph)
    for written in (".keras", ".h5"):
        again = loaded(rewritten(found, tmp_path / f"out{written}"))
        assert difference(run(again, found.graph), expected) == 0


@keras.saving.register_keras_serializable(package="tests")
class Scaled(keras.Layer):
    """Own variables, one of them frozen, declared in the other order."""

    def build(self, shape: Any) -> None:
        self.steps = self.add_weight(name="steps", shape=(2,), trainable=False)
        self.factor = self.add_weight(name="factor", shape=(shape[-1],))

    def call(self, x: Any) -> Any:
        return x * self.factor + keras.ops.sum(self.steps)


@keras.saving.register_keras_serializable(package="tests")
class Block(keras.Layer):
    """A layer that makes layers for itself."""

    def build(self, shape: Any) -> None:
        self.wide = L.Dense(7, name="wide")
        self.wide.build(shape)
        self.back = L.Dense(shape[-1], name="back")
        self.back.build((*shape[:-1], 7))
        self.gain = self.add_weight(name="gain", shape=())

    def call(self, x: Any) -> Any:
        return self.gain * self.back(self.wide(x))


@keras.saving.register_keras_serializable(package="tests")
class Twofold(L.Wrapper):  # type: ignore[name-defined]
    """A user's wrapper."""

    def call(self, x: Any) -> Any:
        return 2 * self.layer(x)


@keras.saving.register_keras_serializable(package="tests")
class Held(keras.Layer):
    """A wrapper that keeps its layer under a name of its own."""

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kept = layer

    def build(self, shape: Any) -> None:
        if not self.kept.built:
            self.kept.build(shape)

    def call(self, x: Any) -> Any:
        return self.kept(x)

    def get_config(self) -> Any:
        layer = keras.saving.serialize_keras_object(self.kept)
        return {**super().get_config(), "layer": layer}

    @classmethod
    def from_config(cls, config: Any) -> Any:
        layer = keras.saving.deserialize_keras_object(config.pop("layer"))
        return cls(layer, **config)


CUSTOM: dict[str, tuple[Callable[[], Any], set[tuple[str, str]]]] = {
    "own variables": (
        lambda: Scaled(),
        {(a, b) for a in (".keras", ".h5") for b in (".keras", ".h5")},
    ),
    "layers inside": (lambda: Block(), {(".keras", ".keras")}),
    "a wrapper": (
        lambda: Twofold(L.Dense(3)),
        {(".keras", ".keras"), (".keras", ".h5"), (".h5", ".h5")},
    ),
    "a wrapper of another kind": (lambda: Held(L.Dense(3)), {(".keras", ".keras"), (".h5", ".h5")}),
}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", CUSTOM)
def test_custom_layers_are_read_and_written_where_their_place_is_known(
    name: str, suffix: str, tmp_path: Path
) -> None:
    build, possible = CUSTOM[name]
    given = vectors()
    hidden = build()(L.Dense(3, name="first")(given))
    model = randomised(keras.Model(given, L.Dense(2, name="last")(hidden)))
    found = read_literally(saved(model, tmp_path / f"model{suffix}"))
    stored = sorted(v.storage.load().tobytes() for v in found.graph.variables())
    true = sorted(np.asarray(w.value).tobytes() for w in model.weights)
    assert stored == true
    expected = run(model, found.graph)
    for written in (".keras", ".h5"):
        out = tmp_path / f"out{written}"
        if (suffix, written) in possible:
            assert difference(run(loaded(rewritten(found, out)), found.graph), expected) == 0
        else:
            with pytest.raises(UnsupportedFormat, match="not a built-in class"):
                rewritten(found, out)


def test_a_custom_class_with_a_stock_name_is_not_taken_for_it() -> None:
    mine = Layer("d", "Dense", {"units": 2}, entry={"module": "mine", "registered_name": "Dense"})
    stock = replace(mine, entry={"module": "keras.layers", "registered_name": None})
    assert (is_known(mine), is_known(stock)) == (False, True)


def test_weights_of_a_known_layer_are_counted(tmp_path: Path) -> None:
    model = after(L.Dense(2, name="d"), vectors())
    path = saved(model, tmp_path / "model.keras")
    assert [view.role for view in literally(path).layer("d").views] == ["kernel", "bias"]
