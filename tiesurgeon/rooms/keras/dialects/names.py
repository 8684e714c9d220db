"""Layer names: Keras 1 and 2 allowed "/" in them, Keras 3 refuses it."""

from typing import Any

from tiesurgeon.rooms.keras.dialects.draft import Context
from tiesurgeon.rooms.keras.dialects.nodes import is_reference


def name_of(entry: dict[str, Any]) -> str:
    """The name of a layer or model."""
    config = entry.get("config")
    name = entry.get("name") or (config.get("name") if isinstance(config, dict) else None)
    return name if isinstance(name, str) else str(entry.get("class_name", "layer")).lower()


def without_slashes(layers: list[Any], ends: list[Any], context: Context) -> None:
    """Renames, in place, the layers of one model that have a "/" in their name.

    The name in the file stays in the layer's "dialect", to find its weights by.
    """
    taken = {name_of(layer) for layer in layers}
    new_by_old: dict[str, str] = {}
    for layer in layers:
        old = name_of(layer)
        if "/" not in old:
            continue
        new = old.replace("/", "_")
        while new in taken:
            new += "_"
        taken.add(new)
        new_by_old[old] = new
        layer["dialect"] = {**layer.get("dialect", {}), "name": old}
        if isinstance(layer.get("config"), dict):
            layer["config"]["name"] = new
        layer["name"] = new
        context.note(old, f"renamed {new}: Keras 3 refuses '/' in names")
    if new_by_old:
        for data in [layer.get("inbound_nodes") for layer in layers] + ends:
            _rename_references(data, new_by_old)


def _rename_references(data: Any, new_by_old: dict[str, str]) -> None:
    if is_reference(data):
        data[0] = new_by_old.get(data[0], data[0])
    for item in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        _rename_references(item, new_by_old)
