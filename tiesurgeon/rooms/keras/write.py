"""`Graph` -> `.keras` or `.h5` that stock Keras 3 opens, without Keras.

The graph must be one that Keras can express: every variable in one layer (see `realise`).
Numbers are copied storage by storage, so a model larger than memory can be written.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np

from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.graph import Graph, Layer, Storage, View
from tiesurgeon.rooms.keras.config import serialise
from tiesurgeon.rooms.keras.hdf5 import WEIGHTS_MEMBER
from tiesurgeon.rooms.keras.order import in_keras_order
from tiesurgeon.rooms.keras.pathed import is_operation
from tiesurgeon.rooms.keras.variables import (
    container_names,
    inner_paths,
    is_known,
    own_places,
)

# The Keras whose dialect is written; readers of older ones are told by it.
KERAS_VERSION = "3.15.1"
_ATTRIBUTE_LIMIT = 64512  # legacy_h5_format.py, HDF5_OBJECT_HEADER_LIMIT
_ROWS = 1 << 22


Training = Mapping[str, Any] | None


def write_keras(
    graph: Graph, path: Path, *, provenance: Mapping[str, Any], training: Training = None
) -> None:
    """Writes a `.keras` archive; `provenance` goes into its metadata.

    `training` is how the model was compiled; the optimizer starts afresh.
    """
    graph = ordered(graph)
    metadata = {
        "keras_version": KERAS_VERSION,
        "date_saved": datetime.now().strftime("%Y-%m-%d@%H:%M:%S"),
        "tiesurgeon": provenance,
    }
    # The weights go through a file of their own, as HDF5 cannot be written into a stream.
    with TemporaryDirectory(dir=path.parent, prefix=".tiesurgeon-") as folder:
        weights = Path(folder) / WEIGHTS_MEMBER
        with h5py.File(weights, "w") as file:
            for group, name, storages in _groups(graph, ""):
                _write_vars(file, group, name, storages)
        with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
            archive.writestr("metadata.json", json.dumps(metadata))
            config = serialise(graph)
            if training is not None:
                config["compile_config"] = training
            archive.writestr("config.json", json.dumps(config))
            archive.write(weights, WEIGHTS_MEMBER)


def write_h5(
    graph: Graph, path: Path, *, provenance: Mapping[str, Any], training: Training = None
) -> None:
    """Writes a whole-model `.h5`; `provenance` becomes the attribute `tiesurgeon`."""
    graph = ordered(graph)
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = KERAS_VERSION
        file.attrs["backend"] = "tensorflow"
        file.attrs["model_config"] = json.dumps(serialise(graph))
        file.attrs["tiesurgeon"] = json.dumps(provenance)
        if training is not None:
            file.attrs["training_config"] = json.dumps(training)
        weights = file.create_group("model_weights")
        weights.attrs["keras_version"] = KERAS_VERSION
        weights.attrs["backend"] = "tensorflow"
        layers = [layer for layer in _listed(graph) if not is_operation(layer)]
        _write_names(weights, "layer_names", [layer.name for layer in layers])
        for layer in sorted(layers, key=lambda lay: lay.name):
            _write_list(weights.create_group(layer.name), layer)


def ordered(graph: Graph) -> Graph:
    """The graph, and every nested one, with layers in the order Keras will give them."""

    def order(layer: Layer) -> Layer:
        body = None if layer.body is None else ordered(layer.body)
        inner = tuple(order(lay) for lay in layer.inner)
        return replace(layer, body=body, inner=inner)

    graph = in_keras_order(graph)
    return replace(graph, layers=tuple(order(layer) for layer in graph.layers))


def _listed(graph: Graph) -> tuple[Layer, ...]:
    # Sequential.layers leaves its InputLayer out (keras/src/models/sequential.py).
    if graph.op == "Sequential" and graph.layers and graph.layers[0].op == "InputLayer":
        return graph.layers[1:]
    return graph.layers


def _groups(graph: Graph, prefix: str) -> Iterator[tuple[str, str, list[Storage]]]:
    """(group, layer name, variables in order) for all layers of a `.keras` file."""
    yield prefix, graph.name, []
    layers = tuple(layer for layer in _listed(graph) if not is_operation(layer))
    for place, layer in container_names(layers):
        yield from _layer_groups(layer, f"{prefix}layers/{place}/")


def _layer_groups(layer: Layer, group: str) -> Iterator[tuple[str, str, list[Storage]]]:
    if layer.body is not None:
        yield from _groups(replace(layer.body, name=layer.name), group)
        return
    yield group, layer.name, []
    by_path: dict[str, list[Storage]] = {}
    for path, view in _own_paths(layer):
        by_path.setdefault(path, []).append(as_seen(view))
    for path, storages in by_path.items():
        yield f"{group}{path.removesuffix('vars')}", layer.name, storages
    for place, inner in inner_paths(layer):
        yield from _layer_groups(inner, f"{group}{place}/")


def _own_paths(layer: Layer) -> Iterator[tuple[str, View]]:
    if is_known(layer):
        for place in own_places(layer):
            view = layer.view(place.role)
            if view is not None:
                yield place.path, view
        return
    for view in layer.views:  # read from a .keras file, an unknown layer's roles are paths
        path, _, leaf = view.role.rpartition("/")
        if not leaf.isdigit():
            raise UnsupportedFormat(
                f"layer {layer.name!r}: {layer.op} is not a built-in class, so where a .keras "
                "file keeps its weights is not known; write an .h5 instead (-o name.h5)"
            )
        yield f"{path}/vars" if path else "vars", view


def _write_vars(file: h5py.File, group: str, name: str, storages: list[Storage]) -> None:
    target = file.require_group(f"{group}vars")
    target.attrs["name"] = name
    for index, storage in enumerate(storages):
        _write_dataset(target, str(index), storage)


def _write_list(group: h5py.Group, layer: Layer) -> None:
    """A top-level layer's variables: trainable first, as `_legacy_weights` orders them."""
    found = list(_paths(layer, layer.name, trainable=True))
    found.sort(key=lambda item: not item[2])
    _write_names(group, "weight_names", [path for path, _, _ in found])
    for path, view, _ in found:
        _write_dataset(group, path, as_seen(view))


def _paths(layer: Layer, path: str, *, trainable: bool) -> Iterator[tuple[str, View, bool]]:
    trainable = trainable and bool(layer.config.get("trainable", True))
    if layer.inner and layer.views and not is_known(layer):
        raise UnsupportedFormat(
            f"layer {layer.name!r}: in which order an .h5 keeps the weights of {layer.op} and of "
            "what it wraps is not known; write a .keras file instead (-o name.keras)"
        )
    trained = {place.role: place.trainable for place in own_places(layer)}
    for view in layer.views:
        yield f"{path}/{view.role}", view, trainable and trained.get(view.role, True)
    for inner in layer.inner:
        yield from _paths(inner, f"{path}/{inner.name}", trainable=trainable)
    if layer.body is not None:
        trainable = trainable and bool(layer.body.config.get("trainable", True))
        for nested in layer.body.layers:
            yield from _paths(nested, f"{path}/{nested.name}", trainable=trainable)


def _write_names(group: h5py.Group, attribute: str, names: list[str]) -> None:
    data = np.asarray([name.encode() for name in names], dtype="S" if names else "S1")
    pieces = -(-data.nbytes // _ATTRIBUTE_LIMIT) or 1
    if pieces == 1:
        group.attrs[attribute] = data
        return
    for number, piece in enumerate(np.array_split(data, pieces)):
        group.attrs[f"{attribute}{number}"] = piece


def as_seen(view: View) -> Storage:
    """The numbers in the shape in which the layer sees them, which is how Keras stores them."""
    storage = view.variable.storage
    if view.perm is None and view.reshape is None:
        return storage
    return Storage(storage.key, view.shape, storage.dtype, view.load)


def _write_dataset(group: h5py.Group, name: str, storage: Storage) -> None:
    array = storage.load()
    if array.dtype.name == "bfloat16":  # as H5IOStore writes it
        group.create_dataset(name, data=array.view("V2")).attrs["dtype"] = "bfloat16"
        return
    dataset = group.create_dataset(name, storage.shape, storage.dtype)
    if not storage.shape or storage.size <= _ROWS:
        dataset[()] = array
        return
    rows = max(1, _ROWS * storage.shape[0] // storage.size)
    for start in range(0, storage.shape[0], rows):
        dataset[start : start + rows] = array[start : start + rows]
