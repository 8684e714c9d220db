"""Files of Keras 2, as tf_keras writes them, and layers that two models share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.rooms.keras.stock import (
    difference,
    literally,
    loaded,
    randomised,
    rewritten,
    run,
    saved,
)
from tiesurgeon.graph import Graph
from tiesurgeon.rooms.keras.read import read_literally


def keras2_models() -> dict[str, Callable[[], Any]]:
    old = pytest.importorskip("tf_keras")
    O = old.layers  # noqa: E741, N806

    def nested() -> Any:
        x = old.Input((5, 3))
        y = O.BatchNormalization(name="norm")(O.Dense(7, name="first")(x))
        core = old.Model(x, O.Dense(3, name="second")(y), name="core")
        outer = old.Input((5, 3))
        return old.Model(outer, O.Dense(2)(core(core(outer))))

    def recurrent() -> Any:
        x = old.Input((5,), dtype="int32")
        y = O.Embedding(11, 3)(x)
        y = O.Bidirectional(O.LSTM(2, return_sequences=True))(y)
        y = O.RNN([O.GRUCell(2), O.LSTMCell(3)], return_sequences=True)(y)
        return old.Model(x, O.TimeDistributed(O.Dense(11))(y))

    def attention() -> Any:
        x = old.Input((5, 3))
        y = O.MultiHeadAttention(2, 5)(x, x)
        return old.Model(x, O.Conv1D(2, 3)(O.LayerNormalization()(y)))

    def sequential() -> Any:
        return old.Sequential([old.Input((5, 3)), O.GRU(7), O.Dense(2), O.Dense(3), O.Dense(5)])

    return {
        "nested": nested,
        "recurrent": recurrent,
        "attention": attention,
        "sequential": sequential,
    }


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", ["nested", "recurrent", "attention", "sequential"])
@pytest.mark.filterwarnings("ignore")
def test_keras_2_files_compute_the_same_in_keras_3(name: str, suffix: str, tmp_path: Path) -> None:
    made = randomised(keras2_models()[name]())
    if name == "nested":
        made.layers[1].get_layer("first").trainable = False
    made.save(tmp_path / f"model{suffix}")
    found = read_literally(tmp_path / f"model{suffix}")
    again = loaded(rewritten(found, tmp_path / "out.keras"))
    assert difference(run(again, found.graph), run(made, found.graph)) < 1e-6
    stored = sorted(v.storage.load().tobytes() for v in found.graph.variables())
    assert stored == sorted(w.numpy().tobytes() for w in made.weights)


@pytest.mark.parametrize("kind", ["model.h5", "model.weights.h5", "model.keras"])
@pytest.mark.filterwarnings("ignore")
def test_keras_2_weights_of_equal_shape_are_not_mixed_up(kind: str, tmp_path: Path) -> None:
    old = pytest.importorskip("tf_keras")
    x = y = old.Input((3,))
    for name in ("b", "a", "c"):
        y = old.layers.Dense(3, name=name)(y)
    made = randomised(old.Model(x, y))
    file, config = tmp_path / kind, tmp_path / "model.json"
    (made.save_weights if "weights" in kind else made.save)(file)
    config.write_text(made.to_json())
    graph = literally(file, config=config if "weights" in kind else None)
    for name in ("a", "b", "c"):
        kernel = graph.layer(name).view("kernel")
        assert kernel is not None
        np.testing.assert_array_equal(kernel.load(), made.get_layer(name).kernel.numpy())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_what_a_frozen_model_holds_stays_frozen_in_keras_3(suffix: str, tmp_path: Path) -> None:
    """In Keras 2 the word of the outer model counts, in Keras 3 each layer's own."""
    made = randomised(keras2_models()["nested"]())
    core = made.layers[1]
    core.trainable = False
    core.get_layer("second").trainable = True
    assert len(made.trainable_weights) == 2
    made.save(tmp_path / f"model{suffix}")
    found = read_literally(tmp_path / f"model{suffix}")
    assert sum(variable.trainable for variable in found.graph.variables()) == 2
    again = loaded(rewritten(found, tmp_path / "out.keras"))
    assert len(again.trainable_weights) == 2


@pytest.mark.filterwarnings("ignore")
def test_two_models_over_one_layer_are_tied_in_keras_2(tmp_path: Path) -> None:
    old = pytest.importorskip("tf_keras")
    made = two_over_one(old)
    made.save(tmp_path / "model.h5")
    assert_shared(literally(tmp_path / "model.h5"), made)


def test_two_models_over_one_layer_are_tied_in_keras_3(tmp_path: Path) -> None:
    """Keras writes the layer once and cannot load its own file; we know what it meant."""
    made = two_over_one(keras)
    assert_shared(literally(saved(made, tmp_path / "model.keras")), made)


def two_over_one(framework: Any) -> Any:
    table = framework.layers.Embedding(11, 3, name="table")

    def tower(name: str) -> Any:
        x = framework.Input((5,), dtype="int32", name=f"{name}_in")
        return framework.Model(
            x, framework.layers.Dense(2, name=f"{name}_out")(table(x)), name=name
        )

    one = framework.Input((5,), dtype="int32", name="one")
    two = framework.Input((5,), dtype="int32", name="two")
    ends = [tower("left")(one), tower("right")(two)]
    return randomised(framework.Model([one, two], framework.layers.Add()(ends)))


def assert_shared(graph: Graph, made: Any) -> None:
    bodies = [graph.layer(name).body for name in ("left", "right")]
    tables = [body.layer("table").views[0].variable for body in bodies if body is not None]
    assert tables[0] is tables[1]
    true = made.get_layer("left").get_layer("table").weights[0]
    np.testing.assert_array_equal(tables[0].storage.load(), np.asarray(true))
    assert len(graph.variables()) == 5
