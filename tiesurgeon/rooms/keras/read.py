"""Keras files of every age -> `Graph`, without Keras.

`.h5` of Keras 1, 2 and 3 (whole models or weights only), `.keras` of Keras 2 and 3,
`.weights.h5`; weights-only files take the architecture from a `.json` beside them.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tiesurgeon.damage import blamed
from tiesurgeon.errors import UnreadableFile, UnsupportedFormat
from tiesurgeon.graph import Graph, Layer, Variable, View
from tiesurgeon.rooms.keras import layered, lora, pathed
from tiesurgeon.rooms.keras.assets import with_vocabularies
from tiesurgeon.rooms.keras.config import freeze_below, skeleton
from tiesurgeon.rooms.keras.dialects import modernise
from tiesurgeon.rooms.keras.hdf5 import Hdf5, names
from tiesurgeon.rooms.keras.layouts import modernised
from tiesurgeon.rooms.keras.masks import without_stated_masks
from tiesurgeon.rooms.keras.shapes import refuse_misfits
from tiesurgeon.rooms.keras.source import WEIGHTS_MEMBER, Source, in_archive
from tiesurgeon.rooms.keras.tied import recognise
from tiesurgeon.rooms.keras.training import as_compiled

_LARGEST_CONFIG = 1 << 26
_FREE_CONFIG = 1 << 24
_MOST_UNPACKED = 100  # times


@dataclass(frozen=True)
class KerasFile:
    """What a Keras file holds: the graph, who wrote it, how it was to be trained.

    `format` is set where the file's content tells it better than its outside.
    """

    graph: Graph
    writer: str
    training: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    format: str | None = None


def read(path: Path, *, config: Path | None = None) -> KerasFile:
    """Reads a Keras file; `config` is the architecture for a file of weights only.

    Tied forms are recognised: see `tied`. Raises UnreadableFile with one line where the
    file is not what it should be.
    """
    found = read_literally(path, config=config)
    with blamed(path, "a Keras model"):
        return understood(found)


def understood(found: KerasFile) -> KerasFile:
    """The same with tied forms recognised and unneeded masks gone; a note where calls lack."""
    graph = recognise(without_stated_masks(found.graph))
    return replace(found, graph=graph, notes=(*found.notes, *_without_calls(graph)))


def _without_calls(graph: Graph) -> Iterator[str]:
    if graph.calls or graph.op == "Sequential":
        return
    if not graph.op:
        guessed = "the file holds no graph, so roles are guessed from names and shapes"
        yield f"weights only: {guessed}; give the architecture, if you have it, as --config"
        return
    reason = f"{graph.op} is a subclassed model: its graph is Python code and not in the file"
    yield f"{reason}, so roles are guessed from names and shapes, and it cannot be changed"


def read_literally(path: Path, *, config: Path | None = None) -> KerasFile:
    """The same, in the very layers of the file."""
    architecture = None
    if config is not None:
        with blamed(config, "a Keras model"):
            _refuse_missing(config)
            architecture = as_config(config.read_bytes())
    with blamed(path, "a Keras model"):
        _refuse_missing(path)
        if zipfile.is_zipfile(path):
            return _read_archive(path)
        return _read_hdf5(path, architecture)


def _refuse_missing(path: Path) -> None:
    if not path.exists():
        raise UnreadableFile("there is no such file")
    if not path.is_file():
        raise UnreadableFile("a folder, expected a Keras file")
    if path.stat().st_size == 0:
        raise UnreadableFile("the file is empty")


def _read_archive(path: Path) -> KerasFile:
    with zipfile.ZipFile(path) as archive:
        members = set(archive.namelist())
        for member in ("config.json", WEIGHTS_MEMBER):
            if member not in members:
                raise UnreadableFile(f"a zip file without {member}, so not a .keras model")
        config = as_config(_member(archive, "config.json"))
        metadata = _object(_member(archive, "metadata.json")) if "metadata.json" in members else {}
        vocabularies = {
            member.removeprefix("assets/").removesuffix("/vocabulary.txt"): _member(archive, member)
            for member in members
            if member.startswith("assets/") and member.endswith("/vocabulary.txt")
        }
        source = in_archive(archive, path)
    with source.open() as file:
        weights = pathed.tree(Hdf5(source, file))
    version = str(metadata.get("keras_version", "3"))
    found = _of_paths(weights, config, version, path)
    graph = with_vocabularies(found.graph, vocabularies)
    return replace(found, graph=graph, training=as_compiled(config.get("compile_config")))


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    allowed = min(_LARGEST_CONFIG, max(_FREE_CONFIG, _MOST_UNPACKED * info.compress_size))
    if info.file_size > allowed:
        raise UnreadableFile(f"{name} would unpack to {info.file_size:,} bytes, so is no config")
    return archive.read(info)


def _read_hdf5(path: Path, architecture: Mapping[str, Any] | None) -> KerasFile:
    source = Source(path)
    with source.open() as file:
        hdf5 = Hdf5(source, file)
        if "layer_names" in file.attrs or "layer_names0" in file.attrs or "model_weights" in file:
            return _of_lists(hdf5, architecture)
        weights = pathed.tree(hdf5)
    if not weights.groups:
        raise UnreadableFile("an HDF5 file, but not one that Keras wrote")
    return _of_paths(weights, architecture, None, path)


def _of_paths(
    weights: pathed.Tree, config: Mapping[str, Any] | None, version: str | None, path: Path
) -> KerasFile:
    writer = f"keras {version or 3}"
    if config is None:
        return KerasFile(Graph(path.stem, "", pathed.bare_layers(weights)), writer)
    graph, notes = _skeleton(config, version)
    if not graph.layers:
        return KerasFile(replace(graph, layers=pathed.bare_layers(weights)), writer, notes=notes)
    return _finished(pathed.attach(graph, weights), writer, notes)


def _of_lists(hdf5: Hdf5, architecture: Mapping[str, Any] | None) -> KerasFile:
    file = hdf5.file
    group = hdf5.group(file, "model_weights") if "model_weights" in file else file
    lists = {
        name: [(weight, hdf5.storage_at(layer, weight)) for weight in names(layer, "weight_names")]
        for name in names(group, "layer_names")
        for layer in [hdf5.group(group, name)]
    }
    version = hdf5.text("keras_version") or hdf5.text("keras_version", group) or "1"
    text = hdf5.text("model_config")
    config = architecture if text is None else as_config(text.encode())
    if config is None:
        return KerasFile(Graph(hdf5.source.path.stem, "", _bare(lists)), f"keras {version}")
    training = hdf5.text("training_config")
    backend = hdf5.text("backend") or hdf5.text("backend", group)
    return of_lists(
        lists,
        config,
        version,
        training=None if training is None else _object(training.encode()),
        flipped=backend == "theano",
    )


def of_lists(
    lists: Mapping[str, Sequence[layered.Named]],
    config: Mapping[str, Any],
    version: str,
    *,
    training: Any = None,
    flipped: bool = False,
) -> KerasFile:
    """The model of a config, whose top-level layers have their weights in lists by name.

    `training` is what the file says of that; `flipped`: convolutions as Theano stored them.
    """
    graph, notes = _skeleton(config, version)
    if not graph.layers:
        layers = _bare(lists)
        return KerasFile(replace(graph, layers=layers), f"keras {version}", notes=notes)
    attached = layered.attach(graph, lists)
    found = _finished(attached, f"keras {version}", notes, flipped=flipped)
    return replace(found, training=as_compiled(training))


def _skeleton(config: Mapping[str, Any], version: str | None) -> tuple[Graph, tuple[str, ...]]:
    try:
        modern = modernise(config, keras_version=version)
        graph = skeleton(modern.config)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        reason = str(error) or type(error).__name__
        raise UnreadableFile(f"its model config cannot be understood ({reason})") from None
    is_older = version is not None and not version.startswith("3")
    return (freeze_below(graph) if is_older else graph), modern.notes


def _finished(
    graph: Graph, writer: str, notes: tuple[str, ...], *, flipped: bool = False
) -> KerasFile:
    graph = modernised(graph, flipped=flipped)
    refuse_misfits(graph)
    graph, merged = lora.merged(graph)
    return KerasFile(graph, writer, notes=(*notes, *merged))


def _bare(lists: Mapping[str, Sequence[layered.Named]]) -> tuple[Layer, ...]:
    """Layers of a weights-only file: names and variables, no classes, no graph."""
    layers = []
    for name, found in lists.items():
        views: dict[str, View] = {}
        for weight, storage in found:
            parts = weight.split(":")[0].split("/")
            role = "/".join(parts[1:]) if len(parts) > 1 else parts[0]
            role = weight if role in views else role
            views[role] = View(role, Variable(f"{name}/{role}", storage))
        layers.append(Layer(name, "", views=tuple(views.values())))
    return tuple(layers)


def as_config(data: bytes) -> Mapping[str, Any]:
    """The config of a model, of its JSON text; UnreadableFile if it is none."""
    found = _object(data)
    if "class_name" not in found:
        raise UnsupportedFormat("its JSON is not the config of a Keras model (no class_name)")
    return found


def _object(data: bytes) -> Mapping[str, Any]:
    if len(data) > _LARGEST_CONFIG:
        raise UnreadableFile(f"its model config has {len(data):,} bytes, so is none")
    try:
        found = json.loads(data)
    except ValueError as error:
        raise UnreadableFile(f"its model config is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise UnreadableFile("its model config is not a JSON object")
    return found
