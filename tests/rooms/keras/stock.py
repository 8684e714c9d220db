"""Stock Keras as the judge: models with numbers of their own, and where it keeps them."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tiesurgeon.graph import Graph, Layer, View, values_in
from tiesurgeon.rooms.keras.examples import example_inputs
from tiesurgeon.rooms.keras.read import KerasFile, read_literally
from tiesurgeon.rooms.keras.write import write_h5, write_keras


def randomised(model: Any, seed: int = 0) -> Any:
    """The model with numbers that no two weights share; variances stay positive."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        shape = tuple(weight.shape)
        name = weight.name.split(":")[0]
        if "int" in str(weight.dtype):
            weight.assign(rng.integers(1, 9, shape))
        elif any(word in name for word in ("variance", "stddev", "scale")):
            weight.assign(rng.uniform(0.5, 1.5, shape))
        else:
            weight.assign(rng.standard_normal(shape) * 0.5)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    return model


def saved(model: Any, path: Path) -> Path:
    """The model as Keras itself writes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that .h5 is old
        model.save(path)
    return path


def rewritten(found: KerasFile, path: Path) -> Path:
    """What was read, as tiesurgeon writes it."""
    write = write_keras if path.suffix == ".keras" else write_h5
    write(found.graph, path, provenance={}, training=found.training)
    return path


def loaded(path: Path, *, compile: bool = False) -> Any:
    """The model as stock Keras loads it."""
    return keras.models.load_model(path, compile=compile)


def run(model: Any, graph: Graph) -> list[Any]:
    """Outputs on seeded inputs, in order; names of inputs as the graph has them."""
    given = example_inputs(graph)
    order = [graph.call_by_id[value.call].layer for value in values_in(graph.inputs)]
    arrays = [given[name] for name in order]
    names = [getattr(tensor, "name", "").split(":")[0] for tensor in model.inputs]
    if isinstance(getattr(model, "_inputs_struct", None), list) and len(arrays) == 1:
        result = model(arrays, training=False)
    elif len(arrays) == 1:
        result = model(arrays[0], training=False)
    elif isinstance(getattr(model, "_inputs_struct", None), dict):
        result = model(dict(zip(order, arrays, strict=True)), training=False)
    else:
        by_name = dict(zip(order, arrays, strict=True))
        result = model([by_name.get(n, a) for n, a in zip(names, arrays, strict=True)])
    return [np.asarray(keras.ops.convert_to_numpy(part)) for part in keras.tree.flatten(result)]


def difference(one: list[Any], other: list[Any]) -> float:
    """The largest difference of two runs; infinite where they are not of one form."""
    if [a.shape for a in one] != [b.shape for b in other]:
        return float("inf")
    gaps = [np.max(np.abs(a - b), initial=0.0) for a, b in zip(one, other, strict=True)]
    return float(max(gaps, default=0.0))


def held(layer: Any, seen: Layer) -> Iterator[tuple[View, Any]]:
    """Each view of our layer with the variable of Keras' layer that it must be."""
    for view in seen.views:
        yield view, variable(layer, view.role)
    inside = [getattr(layer, name, None) for name in ("layer", "cell")]
    if hasattr(layer, "forward_layer"):
        inside = [layer.forward_layer, layer.backward_layer]
    if hasattr(layer, "cells"):
        inside = list(layer.cells)
    for inner, seen_inner in zip(filter(None, inside), seen.inner, strict=False):
        yield from held(inner, seen_inner)
    for nested in seen.body.layers if seen.body is not None else ():
        if nested.views or nested.inner or nested.body is not None:
            yield from held(layer.get_layer(nested.name), nested)


def variable(layer: Any, role: str) -> Any:
    """The variable that Keras' layer has under a role."""
    part, _, leaf = role.rpartition("/")
    if part:
        layer = getattr(layer, f"_{part}_dense")
    if layer.__class__.__name__ == "Normalization" and leaf in ("mean", "variance"):
        return getattr(layer, f"adapt_{leaf}")
    if not hasattr(layer, leaf) and hasattr(layer, "cell"):
        layer = layer.cell
    return getattr(layer, leaf)


def check_views(model: Any, graph: Graph) -> int:
    """Every variable of the model is seen once, with its value and trainability; how many."""
    seen = []
    for layer in graph.layers:
        if not any(True for _ in layer.all_views()):
            continue
        for view, true in held(model.get_layer(layer.name), layer):
            value = true.numpy()
            np.testing.assert_array_equal(view.load(), value, err_msg=f"{layer.name} {view.role}")
            assert view.variable.trainable == true.trainable, (layer.name, view.role)
            seen.append(id(true))
    wanted = {id(weight) for weight in model.weights}
    assert set(seen) == wanted, [w.path for w in model.weights if id(w) not in seen]
    return len(wanted)


def assert_same_weights(one: Any, other: Any) -> None:
    """Two models hold the same numbers in the same order."""
    for a, b in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(a.value), np.asarray(b.value), err_msg=a.path)


def literally(path: Path, **options: Any) -> Graph:
    """The graph in the very layers of the file."""
    return read_literally(path, **options).graph
