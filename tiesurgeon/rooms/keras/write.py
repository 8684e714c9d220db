"""`Graph` -> `.keras` or `.h5` that stock Keras 3 opens, without Keras.

The graph must be one that Keras can express: every variable in one layer (see `realise`).
Numbers are copied storage by storage, a block at a time, so a model larger than memory can be
written. The same graph gives the same bytes.
"""

from __future__ import annotations

import json
import mmap
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np

from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.graph import Array, Graph, Layer, Storage, View
from tiesurgeon.mapping.keras_operations import is_operation
from tiesurgeon.rooms.keras.config import serialise
from tiesurgeon.rooms.keras.optimizer import Filled, fresh_state
from tiesurgeon.rooms.keras.order import in_keras_order
from tiesurgeon.rooms.keras.slots import Slot, legacy_order, slots
from tiesurgeon.rooms.keras.source import WEIGHTS_MEMBER
from tiesurgeon.rooms.keras.training import Training, as_h5
from tiesurgeon.rooms.keras.variables import (
    container_names,
    inner_paths,
    is_built_in,
    is_known,
    own_places,
)

# The Keras whose dialect is written; readers of older ones are told by it.
KERAS_VERSION = "3.15.1"
_ATTRIBUTE_LIMIT = 64512  # legacy_h5_format.py, HDF5_OBJECT_HEADER_LIMIT
_BLOCK = 1 << 22  # numbers
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_keras(
    graph: Graph, path: Path, *, provenance: Mapping[str, Any], training: Training | None = None
) -> None:
    """Writes a `.keras` archive; `provenance` goes into its metadata.

    `training` is how the model was compiled; the optimizer starts afresh.
    """
    graph = ordered(graph)
    config = serialise(graph)
    if training is not None:
        config["compile_config"] = training
    # The weights go through a file of their own, as HDF5 cannot be written into a stream.
    with TemporaryDirectory(dir=path.parent, prefix=".tiesurgeon-") as folder:
        weights = Path(folder) / WEIGHTS_MEMBER
        with h5py.File(weights, "w") as file:
            for group, name, storages in _groups(graph, ""):
                _write_vars(file, group, name, storages)
            for index, filled in enumerate(fresh_state(training, graph)):
                _write_filled(file, f"optimizer/vars/{index}", filled)
        with zipfile.ZipFile(path, "w") as archive:
            metadata = {"keras_version": KERAS_VERSION, "tiesurgeon": provenance}
            _add(archive, "metadata.json", json.dumps(metadata).encode())
            _add(archive, "config.json", json.dumps(config).encode())
            _add_file(archive, weights)


def write_h5(
    graph: Graph, path: Path, *, provenance: Mapping[str, Any], training: Training | None = None
) -> None:
    """Writes a whole-model `.h5`; `provenance` becomes the attribute `tiesurgeon`."""
    graph = ordered(graph)
    with h5py.File(path, "w") as file:
        _write_writer(file)
        _write_text(file, "model_config", json.dumps(serialise(graph)))
        _write_text(file, "tiesurgeon", json.dumps(provenance))
        if training is not None:
            _write_text(file, "training_config", json.dumps(as_h5(training)))
        weights = file.create_group("model_weights")
        _write_writer(weights)
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
    by_path: dict[str, list[Storage]] = {"vars": []}
    for path, view in _own_paths(layer):
        by_path.setdefault(path, []).append(as_seen(view))
    for path, storages in by_path.items():
        yield f"{group}{path.removesuffix('vars')}", layer.name, storages
    for place, inner in inner_paths(layer):
        yield from _layer_groups(inner, f"{group}{place}/")


def _own_paths(layer: Layer) -> Iterator[tuple[str, View]]:
    if not is_known(layer):
        yield from _found_paths(layer)
        return
    if layer.op == "SpectralNormalization" and layer.inner:
        # It tracks the wrapped matrix as a variable of its own, before vector_u.
        matrix = [v for v in layer.inner[0].views if v.role in ("kernel", "embeddings")]
        yield from (("vars", view) for view in matrix[:1])
    for place in own_places(layer):
        view = layer.view(place.role)
        if view is not None:
            yield place.path, view


def _found_paths(layer: Layer) -> Iterator[tuple[str, View]]:
    """A custom layer's variables: read from a `.keras` file, their roles are their paths."""
    if not all(_was_in_vars(view) for inner in layer.inner for view in inner.all_views()):
        _refuse(layer, ".keras", "it wraps another layer")
    for view in layer.views:
        path, _, leaf = view.role.rpartition("/")
        if path and not leaf.isdecimal():
            _refuse(layer, ".keras", f"it keeps {view.role} in a layer of its own")
        yield f"{path}/vars" if path else "vars", view


def _was_in_vars(view: View) -> bool:
    """True for what was read from a `.keras` file, where it lay in `<path>/vars/<number>`."""
    return view.variable.storage.key.split("/")[-2:-1] == ["vars"]


def _refuse(layer: Layer, suffix: str, reason: str) -> None:
    other = ".h5" if suffix == ".keras" else ".keras"
    raise UnsupportedFormat(
        f"layer {layer.name!r}: {layer.op} is not a built-in class and {reason}, so where a "
        f"{suffix} file keeps its weights is not known; write {other} instead (-o NAME{other})"
    )


def _write_vars(file: h5py.File, group: str, name: str, storages: list[Storage]) -> None:
    target = file.require_group(f"{group}vars")
    target.attrs["name"] = name
    for index, storage in enumerate(storages):
        dataset = _write_dataset(target, str(index), storage)
        if storage.dtype.name == "bfloat16":  # as H5IOStore marks it
            dataset.attrs["dtype"] = "bfloat16"


def _write_list(group: h5py.Group, layer: Layer) -> None:
    """A top-level layer's variables, in the order in which Keras will expect them."""
    found = legacy_order(layer, slots(layer, layer.name), trained="reloaded")
    names = [f"{slot.path}/{slot.role}" for slot in found]
    _write_names(group, "weight_names", names)
    for name, slot in zip(names, found, strict=True):
        _write_dataset(group, name, as_seen(_view(slot)))


def _view(slot: Slot) -> View:
    layer, view = slot.layer, slot.layer.view(slot.role)
    if view is None:
        raise UnsupportedFormat(f"layer {layer.name!r} ({layer.op}) has no {slot.role}")
    if not is_known(layer):
        if layer.inner or slot.role.rpartition("/")[0]:
            _refuse(layer, ".h5", f"it keeps {slot.role} in a layer of its own")
        if is_built_in(layer):
            raise UnsupportedFormat(
                f"layer {layer.name!r}: the order of a quantised {layer.op} in .h5 files is not "
                "known; write .keras instead (-o NAME.keras)"
            )
    return view


def _write_writer(group: h5py.Group) -> None:
    group.attrs["keras_version"] = KERAS_VERSION
    group.attrs["backend"] = "tensorflow"


def _write_text(file: h5py.File, attribute: str, text: str) -> None:
    # A string that varies in length may pass the 64 KB at which fixed ones end.
    file.attrs.create(attribute, text, dtype=h5py.string_dtype())


def _write_names(group: h5py.Group, attribute: str, names: list[str]) -> None:
    data = np.asarray([name.encode() for name in names], dtype="S" if names else "S1")
    pieces = -(-data.nbytes // _ATTRIBUTE_LIMIT) or 1
    while any(piece.nbytes > _ATTRIBUTE_LIMIT for piece in np.array_split(data, pieces)):
        pieces += 1
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


def _write_dataset(group: h5py.Group, name: str, storage: Storage) -> h5py.Dataset:
    array = storage.load()
    if array.dtype.name == "bfloat16":  # HDF5 has no such type
        array = array.view("V2")
    dataset = group.create_dataset(name, array.shape, array.dtype)
    if not array.shape or array.size <= _BLOCK:
        dataset[()] = array
        return dataset
    rows = max(1, _BLOCK * array.shape[0] // array.size)
    for start in range(0, array.shape[0], rows):
        dataset[start : start + rows] = array[start : start + rows]
        _let_go(array)
    return dataset


def _write_filled(file: h5py.File, name: str, filled: Filled) -> None:
    options: dict[str, Any] = {"fillvalue": filled.value} if filled.value else {}
    file.create_dataset(name, filled.shape, filled.dtype, **options)


def _let_go(array: Array) -> None:
    """Gives the pages of a mapped file back, which would else count as this process's memory."""
    base: Any = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _ZIP_EPOCH), data)


def _add_file(archive: zipfile.ZipFile, path: Path) -> None:
    info = zipfile.ZipInfo(path.name, _ZIP_EPOCH)
    info.file_size = path.stat().st_size  # tells zipfile whether it needs the large format
    with path.open("rb") as source, archive.open(info, "w") as target:
        while block := source.read(1 << 20):
            target.write(block)
