"""What kind of entry a stored config holds, and what holds for all of them."""

import re
from collections.abc import Iterator
from typing import Any

from tiesurgeon.rooms.keras.dialects import keras1

Entry = dict[str, Any]

INNER_LAYERS = ("layer", "forward_layer", "backward_layer", "cell")


def is_functional(entry: Entry) -> bool:
    """True for a model whose layers and calls are stored, whatever its class."""
    config = entry.get("config")
    return isinstance(config, dict) and {"layers", "input_layers", "output_layers"} <= config.keys()


def is_sequential(entry: Entry) -> bool:
    """True for a Sequential model, its layers in a dict or (to Keras 2.1) a bare list."""
    config = entry.get("config")
    return entry["class_name"] == "Sequential" and (
        isinstance(config, list) or (isinstance(config, dict) and "layers" in config)
    )


def is_entry(value: Any) -> bool:
    """True for a class and its config."""
    return (
        isinstance(value, dict) and isinstance(value.get("class_name"), str) and "config" in value
    )


def version_numbers(stated: Any) -> tuple[int, ...]:
    """The major and minor number in a version like "2.2.4-tf" or "1"; () for anything else."""
    pattern = r"(\d{1,3})(?:\.(\d{1,3}))?(?!\d)"
    found = re.match(pattern, stated) if isinstance(stated, str) else None
    return (int(found[1]), int(found[2] or 0)) if found else ()


def major_version(entry: Entry, stated: Any) -> int:
    """The major version of Keras that wrote a model: as stated, or as its words show."""
    numbers = version_numbers(stated)
    if numbers:
        return min(max(numbers[0], 1), 3)
    layers = list(layers_within(entry))
    if any(map(keras1.is_keras1, layers)):
        return 1
    return 3 if any(map(_is_keras3, layers)) else 2


def _is_keras3(layer: Entry) -> bool:
    config, nodes = layer.get("config"), layer.get("inbound_nodes")
    if isinstance(nodes, list) and nodes and isinstance(nodes[0], dict) and "args" in nodes[0]:
        return True
    dtype = config.get("dtype") if isinstance(config, dict) else None
    return isinstance(config, dict) and (
        (layer.get("class_name") == "InputLayer" and "batch_shape" in config)
        or (isinstance(dtype, dict) and dtype.get("class_name") == "DTypePolicy")
    )


def layers_within(entry: Any) -> Iterator[Entry]:
    """Yields the entry of every layer and model, at every depth, before anything is rewritten."""
    if not isinstance(entry, dict):
        return
    yield entry
    config = entry.get("config")
    if isinstance(config, dict):
        inner = [config.get(key) for key in INNER_LAYERS]
        for key in ("layers", "cells"):
            inner += config[key] if isinstance(config.get(key), list) else []
    else:
        inner = config if isinstance(config, list) else []
    for layer in inner:
        yield from layers_within(layer)
