"""Keras files of every age -> `Graph`, without Keras.

`.h5` of Keras 1, 2 and 3 (whole models or weights only), `.keras` of Keras 2 and 3,
`.weights.h5`; weights-only files take the architecture from a `.json` beside them.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tiesurgeon.errors import UnreadableFile, UnsupportedFormat
from tiesurgeon.graph import Graph, Layer, Storage, Variable, View
from tiesurgeon.rooms.keras import keras1, layered, pathed
from tiesurgeon.rooms.keras.config import skeleton
from tiesurgeon.rooms.keras.dialects import modernise
from tiesurgeon.rooms.keras.hdf5 import WEIGHTS_MEMBER, Hdf5, Source, names
from tiesurgeon.rooms.keras.masks import without_stated_masks
from tiesurgeon.rooms.keras.tied import recognise

_LARGEST_CONFIG = 1 << 28


@dataclass(frozen=True)
class KerasFile:
    """What a Keras file holds: the graph, who wrote it, how it was to be trained."""

    graph: Graph
    writer: str
    training: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


def read(path: Path, *, config: Path | None = None) -> KerasFile:
    """Reads a Keras file; `config` is the architecture for a file of weights only.

    Tied forms are recognised: see `tied`. Raises UnreadableFile with one line where the
    file is not what it should be.
    """
    found = read_literally(path, config=config)
    return replace(found, graph=recognise(without_stated_masks(found.graph)))


def read_literally(path: Path, *, config: Path | None = None) -> KerasFile:
    """The same, in the very layers of the file."""
    if zipfile.is_zipfile(path):
        return _read_archive(path)
    source = Source(path)
    architecture = None if config is None else _json(config.read_bytes(), config)
    with source.open() as file:
        hdf5 = Hdf5(source, file)
        if "layer_names" in file.attrs or "layer_names0" in file.attrs or "model_weights" in file:
            return _read_layered(hdf5, architecture)
        weights = pathed.tree(hdf5)
        if not weights.groups:
            raise UnreadableFile(f"{path}: an HDF5 file, but not one that Keras wrote")
        return _read_pathed(weights, architecture, "keras 3", path)


def _read_archive(path: Path) -> KerasFile:
    with zipfile.ZipFile(path) as archive:
        members = set(archive.namelist())
        if "config.json" not in members or WEIGHTS_MEMBER not in members:
            missing = "config.json" if "config.json" not in members else WEIGHTS_MEMBER
            raise UnreadableFile(f"{path}: a zip file without {missing}, so not a .keras model")
        config = _json(_member(archive, "config.json", path), path)
        metadata: Any = {}
        if "metadata.json" in members:
            metadata = _json(_member(archive, "metadata.json", path), path)
    version = str(metadata.get("keras_version", "3"))
    source = Source(path, WEIGHTS_MEMBER)
    with source.open() as file:
        weights = pathed.tree(Hdf5(source, file))
    found = _read_pathed(weights, config, f"keras {version}", path, version)
    return replace(found, training=config.get("compile_config"))


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    if archive.getinfo(name).file_size > _LARGEST_CONFIG:
        raise UnreadableFile(f"{path}: {name} is over {_LARGEST_CONFIG >> 20} MB, not a config")
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, OSError) as error:
        raise UnreadableFile(f"{path}: {name} cannot be unpacked ({error})") from None


def _read_pathed(
    weights: pathed.Tree,
    config: Mapping[str, Any] | None,
    writer: str,
    path: Path,
    version: str | None = None,
) -> KerasFile:
    if config is None:
        return KerasFile(Graph(path.stem, "", pathed.bare_layers(weights)), writer)
    graph, notes = _graph_of(config, version, path)
    if not graph.layers:
        bare = replace(graph, layers=pathed.bare_layers(weights))
        return KerasFile(bare, writer, notes=notes)
    return KerasFile(_located(lambda: pathed.attach(graph, weights), path), writer, notes=notes)


def _read_layered(hdf5: Hdf5, architecture: Mapping[str, Any] | None) -> KerasFile:
    path, file = hdf5.source.path, hdf5.file
    group = hdf5.group(file, "model_weights") if "model_weights" in file else file
    lists = {
        name: [(weight, hdf5.storage_at(hdf5.group(group, name), weight)) for weight in found]
        for name in names(group, "layer_names")
        for found in [names(hdf5.group(group, name), "weight_names")]
    }
    version = hdf5.text("keras_version") or _text(group.attrs.get("keras_version")) or "1"
    text = hdf5.text("model_config")
    config = architecture if text is None else _json(text.encode(), path)
    if config is None:
        return KerasFile(Graph(path.stem, "", _bare(lists)), f"keras {version}")
    graph, notes = _graph_of(config, version, path)
    if not graph.layers:
        return KerasFile(replace(graph, layers=_bare(lists)), f"keras {version}", notes=notes)
    if version.startswith("1"):
        lists = {
            name: keras1.upgrade(graph.by_name[name], found) if name in graph.by_name else found
            for name, found in lists.items()
        }
    training = hdf5.text("training_config")
    return KerasFile(
        _located(lambda: layered.attach(graph, lists), path),
        f"keras {version}",
        None if training is None else _json(training.encode(), path),
        notes,
    )


def _graph_of(
    config: Mapping[str, Any], version: str | None, path: Path
) -> tuple[Graph, tuple[str, ...]]:
    try:
        modern = modernise(config, keras_version=version)
        return skeleton(modern.config), modern.notes
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableFile(f"{path}: its model config cannot be understood ({reason})") from None


def _located(attach: Any, path: Path) -> Graph:
    try:
        graph: Graph = attach()
    except UnreadableFile as error:
        raise UnreadableFile(f"{path}: {error}") from None
    return graph


def _bare(lists: Mapping[str, list[tuple[str, Storage]]]) -> tuple[Layer, ...]:
    """Layers of a weights-only file: names and variables, no classes, no graph."""
    layers = []
    for name, found in lists.items():
        views = []
        for weight, storage in found:
            parts = weight.split(":")[0].split("/")
            role = "/".join(parts[1:]) if len(parts) > 1 else parts[0]
            views.append(View(role, Variable(f"{name}/{role}", storage)))
        layers.append(Layer(name, "", views=tuple(views)))
    return tuple(layers)


def _json(data: bytes, path: Path) -> Any:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnreadableFile(f"{path}: its model config is not JSON ({error})") from None
    if not isinstance(found, Mapping):
        raise UnreadableFile(f"{path}: its model config is not a JSON object")
    if "class_name" not in found and "keras_version" not in found and "optimizer" not in str(found):
        raise UnsupportedFormat(f"{path}: a JSON file, but not a Keras model config")
    return found


def _text(value: Any) -> str | None:
    return value.decode() if isinstance(value, bytes) else value
