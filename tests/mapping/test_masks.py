"""The mask rules are Keras' own, and masks that nobody uses leave no trace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from keras import layers

from tests.mapping.comparing import (
    built,
    difference,
    examples,
    graph_of,
    imported,
    with_random_weights,
)
from tests.rooms.pytorch.code.graphs import language_model
from tiesurgeon.graph import Graph
from tiesurgeon.mapping.mask_rules import ATTENTION, MERGING, PASSING, RECURRENT
from tiesurgeon.mapping.masks import explicit
from tiesurgeon.mapping.registry import Example
from tiesurgeon.mapping.to_torch import to_torch
from tiesurgeon.rooms.pytorch.code.source import model_source
from tiesurgeon.rooms.pytorch.code.write import write

PRODUCING = {"Embedding", "Masking", "ReversibleEmbedding"}
OTHERS = {"Concatenate", "Attention", "AdditiveAttention"} | ATTENTION
KNOWN = PASSING | MERGING | RECURRENT | PRODUCING | OTHERS


@pytest.mark.parametrize(("name", "example"), [(n, e) for n, number, e in examples() if not number])
def test_the_lists_of_rules_agree_with_keras(name: str, example: Example) -> None:
    config = {"mask_zero": True} if "Embedding" in name else {}
    supports = built(name, {**example.keras, **config}).supports_masking
    # GlobalAveragePooling1D uses a mask and hands none on; Dot's is always None.
    assert supports == (name in KNOWN | {"GlobalAveragePooling1D", "Dot"})


def test_unused_masks_leave_no_trace() -> None:
    graph = explicit(_without_lstm(language_model(mask_zero=True)))
    assert not [call.id for call in graph.calls if "mask" in call.id]


def _without_lstm(graph: Graph) -> Graph:
    lstm = graph.layer("lstm")
    return graph.with_layers({"lstm": replace(lstm, op="Dropout", config={"rate": 0.1}, views=())})


def test_masks_that_the_file_spells_out_are_computed_once(tmp_path: Path) -> None:
    a = keras.Input((7,), dtype="int32", name="a")
    table = layers.Embedding(11, 3, mask_zero=True)
    b = keras.Input((7,), dtype="int32", name="b")
    joined = layers.Concatenate()([table(a), table(b)])
    x = layers.GRU(3, return_sequences=True)(joined)
    model = keras.Model([a, b], layers.GRU(2)(x), name="m")
    source = model_source(to_torch(graph_of(model, tmp_path)), source="m.keras", version="0")
    assert source.count("!= 0") == 2
    assert "mask_2 = " in source
    assert "zeros_like(embedding" not in source


@pytest.mark.parametrize("mask_from", ["embedding", "stated"])
def test_a_mask_stated_by_hand(mask_from: str, tmp_path: Path) -> None:
    ids = keras.Input((7,), dtype="int32", name="ids")
    x = layers.Embedding(11, 3)(ids)
    mask = keras.ops.greater(ids, 3) if mask_from == "stated" else keras.ops.not_equal(ids, 0)
    model = keras.Model(ids, layers.LSTM(2)(x, mask=mask), name="stated")
    inputs = [np.random.default_rng(0).integers(0, 11, (4, 7)).astype("int32")]
    assert difference(with_random_weights(model), inputs, tmp_path) < 1e-5


def test_keras_leaves_the_mask_out_where_states_are_given(tmp_path: Path) -> None:
    ids = keras.Input((7,), dtype="int32", name="ids")
    h = keras.Input((3,), name="h")
    x = layers.Embedding(11, 3, mask_zero=True)(ids)
    model = keras.Model([ids, h], layers.GRU(3)(x, initial_state=h), name="stated")
    inputs = [np.zeros((2, 7), "int32"), np.ones((2, 3), "float32")]
    assert difference(with_random_weights(model), inputs, tmp_path) < 1e-5
    assert "mask" not in (tmp_path / "stated_torch" / "model.py").read_text()


def test_attention_takes_the_masks_of_its_arguments_away(tmp_path: Path) -> None:
    ids = keras.Input((7,), dtype="int32", name="ids")
    x = layers.Embedding(11, 3, mask_zero=True)(ids)
    y = layers.MultiHeadAttention(2, 3)(x, x)
    z = layers.GRU(3, return_sequences=True)(layers.Add()([x, y]))
    product = layers.Multiply()([x, y])  # which looks at the masks while it runs
    model = keras.Model(ids, [z, layers.LSTM(2)(y), product], name="attending")
    inputs = [np.random.default_rng(0).integers(0, 3, (4, 7)).astype("int32")]
    assert difference(with_random_weights(model), inputs, tmp_path) < 1e-5


def test_keras_2_hard_sigmoid(tmp_path: Path) -> None:
    def old(x: object) -> object:
        return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)  # type: ignore[operator]

    steps = keras.Input((7, 5))
    lstm = layers.LSTM(3, recurrent_activation="hard_sigmoid", name="lstm")
    model = with_random_weights(keras.Model(steps, lstm(steps), name="old"))
    graph = graph_of(model, tmp_path)
    layer = graph.layer("lstm")
    entry = {**layer.entry, "dialect": {"hard_sigmoid": "0.2x+0.5"}}
    graph = graph.with_layers({"lstm": replace(layer, entry=entry)})
    write(to_torch(graph), tmp_path, source="old.h5", version="0")

    lstm.cell.recurrent_activation = old
    x = np.random.default_rng(0).normal(0, 2, (4, 7, 5)).astype("float32")
    found = imported(tmp_path).load()(torch.from_numpy(x)).detach().numpy()
    assert np.abs(found - np.asarray(lstm(x))).max() < 1e-5
