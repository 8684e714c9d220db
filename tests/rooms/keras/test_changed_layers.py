"""Layers with LoRA, quantised ones, and preprocessing that was adapted to data."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.rooms.keras.models import ids, vectors
from tests.rooms.keras.stock import (
    check_views,
    difference,
    loaded,
    randomised,
    rewritten,
    run,
    saved,
)
from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.rooms.keras.read import read_literally

L = keras.layers
Build = Callable[[], Any]


def after(layer: Any, given: Any) -> Any:
    return keras.Model(given, layer(given))


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
