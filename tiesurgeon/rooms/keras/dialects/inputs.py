"""What a model takes, said in many ways by the older Keras: as an explicit InputLayer."""

from typing import Any

from tiesurgeon.rooms.keras.dialects.catalogue import LAYER_MODULE
from tiesurgeon.rooms.keras.dialects.entries import Entry, is_entry, is_functional, is_sequential
from tiesurgeon.rooms.keras.dialects.names import name_of
from tiesurgeon.rooms.keras.dialects.parts import dtype_name


def build_shape(entry: Entry) -> Any:
    """The shape that a model was built for by a first call, if its file says."""
    build = entry.get("build_config")
    return build.get("input_shape") if isinstance(build, dict) else None


def implied_input(first: Entry, built_shape: Any) -> list[Entry]:
    """The InputLayer that a Sequential's first layer, or its building, implies."""
    shape, dtype = declared_input(first)
    shape = shape or built_shape
    if not isinstance(shape, list) or not all(size is None or _is_size(size) for size in shape):
        return []
    config = {
        "batch_shape": shape,
        "dtype": dtype or "float32",
        "sparse": False,
        "name": f"{name_of(first)}_input",
    }
    return [
        {
            "module": LAYER_MODULE,
            "class_name": "InputLayer",
            "config": config,
            "registered_name": None,
        }
    ]


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def declared_input(entry: Entry) -> tuple[Any, str | None]:
    """The batch shape and dtype that a layer or model, not yet rewritten, takes; None if unsaid."""
    config = entry.get("config")
    if isinstance(config, list):
        return declared_input(config[0]) if config else (None, None)
    if not isinstance(config, dict):
        return None, None
    if is_functional(entry):
        inputs = [layer for layer in config["layers"] if layer.get("class_name") == "InputLayer"]
        return declared_input(inputs[0]) if len(inputs) == 1 else (None, None)
    if is_sequential(entry):
        shape, dtype = declared_input(config["layers"][0]) if config["layers"] else (None, None)
        return shape or config.get("build_input_shape"), dtype
    dtype = config.get("input_dtype") or dtype_name(config.get("dtype"))
    return _declared_shape(entry["class_name"], config), dtype


def _declared_shape(class_name: str, config: dict[str, Any]) -> Any:
    shape = config.get("batch_input_shape") or config.get("batch_shape")
    if shape is not None:
        return shape
    if isinstance(config.get("input_shape"), list):
        return [None, *config["input_shape"]]
    if class_name == "Bidirectional" and is_entry(config.get("layer")):
        return declared_input(config["layer"])[0]
    width, length = config.get("input_dim"), config.get("input_length")
    if class_name == "Embedding":
        return (
            None if length is None else [None, *(length if isinstance(length, list) else [length])]
        )
    if class_name in ("SimpleRNN", "LSTM", "GRU"):
        return None if width is None else [None, length, width]
    return None if width is None else [None, width]
