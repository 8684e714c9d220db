"""Our order of layers is the one that Keras gives, on random graphs."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import pytest

from tests.rooms.keras.models import MODELS, ids, vectors
from tests.rooms.keras.stock import literally, loaded, rewritten, saved
from tiesurgeon.graph import Graph
from tiesurgeon.rooms.keras.order import flattened, in_keras_order
from tiesurgeon.rooms.keras.read import read_literally

L = keras.layers


def random_model(seed: int) -> Any:
    """Layers called once or often, merged, nested, and some operations between them."""
    rng = random.Random(seed)
    inputs = [vectors(3, name=f"in_{number}") for number in range(rng.randint(1, 3))]
    values, reused = list(inputs), [L.Dense(3, name=f"shared_{n}") for n in range(3)]
    core = nested(rng)

    def some(count: int) -> list[Any]:
        return [rng.choice(values[-5:] + inputs) for _ in range(count)]

    for _ in range(rng.randint(3, 14)):
        kind = rng.randrange(7)
        if kind == 0:
            values.append(rng.choice(reused)(*some(1)))
        elif kind == 1:
            values.append(L.Add()(some(3)))
        elif kind == 2:
            values.append(L.Dense(3)(L.Concatenate()(some(2))))
        elif kind == 3:
            one, two = some(2)
            values.append(one * two + 1.0)
        elif kind == 4:
            one, two = core({"b": some(1)[0], "a": some(1)[0]}).values()
            values += [one, two]
        elif kind == 5:
            values.append(keras.ops.stack(some(2), axis=0)[0])
        else:
            values.append(L.Dense(3)(*some(1)))
    outputs = some(rng.randint(1, 3))
    named = {f"out_{9 - n}": value for n, value in enumerate(outputs)}
    ends = rng.choice([outputs[0], outputs, named])
    used = [tensor for tensor in inputs if tensor is not inputs[-1] or rng.random() < 0.7]
    try:
        return keras.Model(used, ends)
    except ValueError:  # an input was left out that is needed
        return keras.Model(inputs, ends)


def nested(rng: random.Random) -> Any:
    a, b = vectors(3, name="a"), vectors(3, name="b")
    first, second = L.Dense(3, name="first"), L.Dense(3, name="second")
    y = second(first(L.Add(name="both")([a, b])))
    ends = {"y": y, "x": first(b)} if rng.random() < 0.5 else {"x": b, "y": y}
    return keras.Model({"a": a, "b": b}, ends, name="core")


def shuffled(graph: Graph, seed: int) -> Graph:
    layers = list(graph.layers)
    random.Random(seed).shuffle(layers)
    return replace(graph, layers=tuple(layers))


def names(model: Any) -> list[str]:
    return [operation.name for operation in model.operations]


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs(seed: int, tmp_path: Path) -> None:
    model = random_model(seed)
    graph = literally(saved(model, tmp_path / "model.keras"))
    ordered = in_keras_order(shuffled(graph, seed))
    assert [layer.name for layer in ordered.layers] == names(model)
    assert {call.layer for call in ordered.calls} == set(names(model))


@pytest.mark.parametrize("seed", range(6))
def test_what_is_written_is_listed_so_by_keras(seed: int, tmp_path: Path) -> None:
    model = random_model(seed)
    found = read_literally(saved(model, tmp_path / "model.keras"))
    found = replace(found, graph=shuffled(found.graph, seed))
    assert names(loaded(rewritten(found, tmp_path / "out.keras"))) == names(model)


@pytest.mark.parametrize("name", MODELS)
def test_models_of_all_kinds(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    graph = literally(saved(model, tmp_path / "model.keras"))
    if isinstance(model, keras.Sequential):
        assert in_keras_order(graph) is graph
    else:
        ordered = in_keras_order(shuffled(graph, 3))
        assert [layer.name for layer in ordered.layers] == names(model)


def test_layers_that_lead_nowhere_are_dropped_and_inputs_kept(tmp_path: Path) -> None:
    one, two = ids("one"), ids("two")
    table = L.Embedding(11, 3, name="table")
    first_alone = keras.Model([one, two], table(one))
    model = keras.Model([one, two], [table(one), L.LSTM(2, name="side")(table(two))])
    graph = literally(saved(model, tmp_path / "model.keras"))
    first = next(flattened(graph.outputs))
    ordered = in_keras_order(replace(graph, outputs=first))
    assert [layer.name for layer in ordered.layers] == names(first_alone)
    assert [call.id for call in ordered.calls_of("table")] == ["table"]


def test_dicts_are_taken_by_their_sorted_keys() -> None:
    from tiesurgeon.graph import Value

    a, b, c = (Value(name) for name in "abc")
    assert list(flattened(({"z": a, "y": [b]}, c))) == [b, a, c]
