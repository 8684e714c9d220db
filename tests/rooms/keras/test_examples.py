"""Made-up inputs are such that the model can be run on them."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from tests.rooms.keras.models import MODELS, ids
from tests.rooms.keras.stock import literally, run, saved
from tiesurgeon.graph import values_in
from tiesurgeon.rooms.keras.examples import example_inputs, vocabularies

L = keras.layers


def inputs_of(model: Any, folder: Path) -> dict[str, Any]:
    return example_inputs(literally(saved(model, folder / "model.keras")))


def test_every_model_runs_on_them(tmp_path: Path) -> None:
    for name, build in MODELS.items():
        model = build()
        graph = literally(saved(model, tmp_path / "model.keras"))
        assert all(np.isfinite(array.astype("float32")).all() for array in run(model, graph)), name


def test_the_same_seed_gives_the_same(tmp_path: Path) -> None:
    graph = literally(saved(MODELS["several_outputs"](), tmp_path / "model.keras"))
    one, two, other = (example_inputs(graph, seed=seed) for seed in (3, 3, 4))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not any(np.array_equal(one[name], other[name]) for name in one)


def test_shapes_and_types_are_those_of_the_inputs(tmp_path: Path) -> None:
    fixed = keras.Input(batch_shape=(5, 3), name="fixed")
    free = keras.Input((None, 2), name="free")
    flags = keras.Input((3,), dtype="bool", name="flags")
    model = keras.Model([fixed, free, flags], [L.Dense(2)(fixed), L.Dense(2)(free), flags])
    found = inputs_of(model, tmp_path)
    assert {name: (array.shape, str(array.dtype)) for name, array in found.items()} == {
        "fixed": ((5, 3), "float32"),
        "free": ((2, 7, 2), "float32"),
        "flags": ((2, 3), "bool"),
    }


def test_ids_stay_below_the_smallest_table(tmp_path: Path) -> None:
    given = ids("given")
    inner, other = ids("inner"), ids("other")
    core = keras.Model([other, inner], [L.Embedding(1000, 2)(other), L.Embedding(3, 2)(inner)])
    ends = [L.Embedding(50, 2)(L.Reshape((5, 1))(given)), *core([given, given])]
    model = keras.Model(given, ends)
    graph = literally(saved(model, tmp_path / "model.keras"))
    assert sorted(vocabularies(graph, next(values_in(graph.inputs)))) == [3, 50, 1000]
    found = example_inputs(graph)["given"]
    assert found.dtype == np.int32
    assert set(np.unique(found)) <= {0, 1, 2}
    assert len(np.unique(found)) > 1


def test_ids_in_steps_and_as_floats(tmp_path: Path) -> None:
    given = keras.Input((3, 5), name="given")
    inner = keras.Input((5,))
    core = keras.Model(inner, L.Embedding(4, 2)(inner))
    found = inputs_of(keras.Model(given, L.TimeDistributed(core)(given)), tmp_path)["given"]
    assert found.dtype == np.float32
    assert found.max() == 3
    assert np.array_equal(found, np.round(found))


def test_there_are_steps_enough(tmp_path: Path) -> None:
    given = keras.Input((None, 2), name="given")
    y = L.MaxPooling1D(3)(L.Conv1D(3, 11, strides=2)(L.Cropping1D((4, 5))(given)))
    model = keras.Model(given, L.Conv1D(3, 7)(y))
    graph = literally(saved(model, tmp_path / "model.keras"))
    assert all(array.size for array in run(model, graph))
