"""A nested model opened up computes what it did."""

from pathlib import Path
from typing import Any

import keras
import pytest

from tests.rooms.keras.models import MODELS, vectors
from tests.rooms.keras.stock import difference, loaded, randomised, run, saved
from tests.rooms.keras.test_order import random_model
from tiesurgeon.errors import TieRefused
from tiesurgeon.graph import Graph, Layer
from tiesurgeon.rooms.keras.inline import inline
from tiesurgeon.rooms.keras.read import read_literally
from tiesurgeon.rooms.keras.write import write_keras

L = keras.layers
NESTED = (
    "nested_twice_deep",
    "nested_called_twice",
    "nested_with_several_ends",
    "sequential_in_sequential",
)


def opened(graph: Graph) -> Graph:
    """The graph with every nested model opened, however deep."""
    while nested := {layer.name for layer in graph.layers if layer.body is not None}:
        graph = inline(graph, nested)
    return graph


def assert_opens(model: Any, tmp_path: Path) -> Graph:
    found = read_literally(saved(randomised(model), tmp_path / "model.keras"))
    flat = opened(found.graph)
    write_keras(flat, tmp_path / "out.keras", provenance={})
    again = loaded(tmp_path / "out.keras")
    assert difference(run(again, flat), run(model, found.graph)) == 0
    assert len(flat.variables()) == len(found.graph.variables())
    assert not any(isinstance(layer, keras.Model) for layer in again.layers)
    return flat


@pytest.mark.parametrize("name", NESTED)
def test_outputs_stay(name: str, tmp_path: Path) -> None:
    assert_opens(MODELS[name](), tmp_path)


@pytest.mark.parametrize("seed", [3, 5, 7, 9, 12, 14])
def test_outputs_of_random_models_stay(seed: int, tmp_path: Path) -> None:
    model = random_model(seed)
    assert_opens(model, tmp_path)


def test_arguments_of_a_dict_are_matched_by_name(tmp_path: Path) -> None:
    a, b = vectors(3, name="a"), vectors(3, name="b")
    core = keras.Model({"a": a, "b": b}, {"y": L.Dense(2)(a), "x": L.Dense(5)(b)}, name="core")
    one, two = vectors(3, name="one"), vectors(3, name="two")
    ends = core({"b": one, "a": two})
    model = keras.Model([one, two], [ends["x"], ends["y"]])
    assert_opens(model, tmp_path)
    graph = read_literally(tmp_path / "model.keras").graph
    assert list(graph.calls_of("core")[0].args[0]) == ["a", "b"]


def test_names_that_are_taken_get_the_models_before_them(tmp_path: Path) -> None:
    x = vectors(3)
    core = keras.Model(x, L.Dense(3, name="same")(x), name="core")
    outer = vectors(3)
    model = keras.Model(outer, core(L.Dense(3, name="same")(outer)))
    flat = assert_opens(model, tmp_path)
    assert [layer.name for layer in flat.layers if layer.op == "Dense"] == ["same", "core_same"]


def test_frozen_models_leave_frozen_layers(tmp_path: Path) -> None:
    model = MODELS["nested_twice_deep"]()
    middle = model.get_layer("middle")
    middle.trainable = False
    middle.get_layer("after").trainable = True
    flat = assert_opens(model, tmp_path)
    frozen = {layer.name for layer in flat.layers if layer.config.get("trainable") is False}
    assert frozen == {"first", "norm", "second"}
    assert sum(variable.trainable for variable in flat.variables()) == len(model.trainable_weights)


def test_an_input_handed_out_again(tmp_path: Path) -> None:
    x = vectors(3)
    core = keras.Model(x, [x, L.Dense(3)(x)], name="core")
    outer = vectors(3)
    same, other = core(outer)
    assert_opens(keras.Model(outer, L.Add()([same, other])), tmp_path)


def test_what_has_no_graph_stays_closed() -> None:
    closed = Graph("core", "Sequential", (Layer("d", "Dense"),))
    graph = Graph("m", "Functional", (Layer("core", "Sequential", body=closed),))
    with pytest.raises(TieRefused, match="no graph inside"):
        inline(graph, {"core"})
