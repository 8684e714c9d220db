"""Every variable of every built-in class: its role, value and trainability, in both formats."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

from tests.rooms.keras.models import ids, vectors
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
from tiesurgeon.rooms.keras.read import read_literally
from tiesurgeon.rooms.keras.variables import PLACES, snake_case

L = keras.layers
Build = Callable[[], Any]


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
