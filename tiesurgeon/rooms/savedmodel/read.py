"""A SavedModel folder -> `Graph`, without TensorFlow.

With the Keras config inside (Keras 2 leaves it there, tiesurgeon too) it is the graph that
an `.h5` file of the model would give. Without, as Keras 3 and plain TensorFlow export, it is
functions and variables: these can be looked at, and no more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tiesurgeon.damage import blamed
from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.graph import Graph, Storage, Variable, View, map_views
from tiesurgeon.rooms.keras.dialects.plain import plain
from tiesurgeon.rooms.keras.read import KerasFile, as_config, of_lists, understood
from tiesurgeon.rooms.savedmodel import bare, extra, keras_metadata
from tiesurgeon.rooms.savedmodel.bundle import Bundle, read_bundle
from tiesurgeon.rooms.savedmodel.objects import Objects, read_objects
from tiesurgeon.rooms.savedmodel.saved_model import SavedModel, read_saved_model

_MOST_SIGNATURES = 3
_EXPORT = (
    "an export: it holds TensorFlow functions and variables but no Keras layers, so roles are "
    "guessed from names and shapes, and it cannot be changed"
)


def read(path: Path, *, config: Path | None = None) -> KerasFile:
    """Reads a SavedModel; ties of Keras layers are recognised as in any Keras file.

    Raises UnreadableFile with one line where the folder is not what it should be, and
    UnsupportedFormat for a `config`, as its layers come from inside.
    """
    found = read_literally(path, config=config)
    if not found.graph.op:
        return found
    with blamed(path, "a SavedModel"):
        return understood(found)


def read_literally(path: Path, *, config: Path | None = None) -> KerasFile:
    """The same, in the very layers of the folder."""
    with blamed(path, "a SavedModel"):
        if config is not None:
            raise UnsupportedFormat(
                "--config is for files of weights; the layers of a SavedModel come from inside it"
            )
        saved = read_saved_model(path / "saved_model.pb")
        bundle = _variables(path)
        objects = read_objects(saved.objects, bundle)
        keras_metadata.add_metadata(objects, path / keras_metadata.FILE)
        return (
            _of_tiesurgeon(path, objects)
            or _of_keras(saved, objects)
            or _export(path, saved, objects, bundle)
        )


def is_export(found: KerasFile) -> bool:
    """True for a SavedModel without Keras layers."""
    return not found.graph.op


def _variables(path: Path) -> Bundle:
    index = path / "variables" / "variables.index"
    if not index.parent.exists():
        return Bundle({}, index.with_suffix(""), 0)  # a model need not have any
    return read_bundle(index)


def _of_tiesurgeon(path: Path, objects: Objects) -> KerasFile | None:
    """The model of the documents in `assets.extra`; None if there are none."""
    if not (path / extra.CONFIG).exists():
        return None
    config = as_config(json.dumps(extra.document(path / extra.CONFIG)).encode())
    metadata = extra.document(path / extra.METADATA)
    lists = extra.named_lists(objects, metadata.get("weights"))
    version = str(metadata.get("keras_version", "3"))
    found = of_lists(lists, config, version, training=config.get("compile_config"))
    return _with_variables_once(found)


def _of_keras(saved: SavedModel, objects: Objects) -> KerasFile | None:
    """The model of Keras 2's metadata; None if its root is no Keras model."""
    said = keras_metadata.said_of(objects.nodes[0]) if objects.nodes else {}
    config = keras_metadata.model_config(said)
    if config is None:
        return None
    # tf_keras says its TensorFlow's version, which starts with a 2 as well.
    version = str(said.get("keras_version", "2"))
    lists = keras_metadata.weight_lists(objects)
    training = plain(said.get("training_config"))
    found = of_lists(lists, config, version, training=training)
    if found.graph.layers and lists:
        return _with_variables_once(found)
    graph = replace(found.graph, layers=bare.bare_layers(objects))
    return replace(found, graph=graph, notes=(*found.notes, *_signatures(saved)))


def _with_variables_once(found: KerasFile) -> KerasFile:
    """What is one object in the SavedModel is one variable, whichever layers hold it."""
    first: dict[Storage, Variable] = {}

    def once(view: View) -> View:
        variable = view.variable
        return replace(view, variable=first.setdefault(variable.storage, variable))

    return replace(found, graph=map_views(found.graph, once))


def _export(path: Path, saved: SavedModel, objects: Objects, bundle: Bundle) -> KerasFile:
    layers = bare.bare_layers(objects) if objects.nodes else bare.keyed_layers(bundle)
    notes = (_EXPORT, *_signatures(saved), *_copies(objects))
    return KerasFile(Graph(path.stem, "", layers), f"tensorflow {saved.version}", notes=notes)


def _signatures(saved: SavedModel) -> Iterator[str]:
    by_tensors: dict[str, list[str]] = {}
    for name, signature in saved.signatures.items():
        by_tensors.setdefault(str(signature), []).append(name)
    for tensors, names in list(by_tensors.items())[:_MOST_SIGNATURES]:
        yield f"signature {', '.join(names)}: {tensors}"


def _copies(objects: Objects) -> Iterator[str]:
    copies = bare.written_twice(objects) if objects.nodes else []
    if copies:
        size = sum(node.storage.nbytes for node in copies if node.storage)
        yield (
            f"{len(copies)} variables are written a second time ({size:,} bytes), as Keras' own "
            "export does (keras#23553)"
        )
