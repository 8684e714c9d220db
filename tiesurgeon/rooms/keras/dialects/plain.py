"""JSON left-overs of the older writers, as plain values."""

from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:
    """Returns a deep copy of `value` in lists, dicts and scalars.

    Tuples become lists; what old JSON encoders wrapped is unwrapped.
    """
    if isinstance(value, Mapping):
        return _plain_mapping(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _plain_mapping(value: Mapping[Any, Any]) -> Any:
    kind = value.get("class_name")
    # tf.keras' json_utils.Encoder, as used in SavedModels.
    if kind in ("__tuple__", "TensorShape") and isinstance(value.get("items"), list | tuple):
        return [plain(item) for item in value["items"]]
    if kind == "__ellipsis__":
        return {"class_name": "__ellipsis__", "config": {}}
    # Keras 2.0 to 2.2 wrote numpy arrays (LeakyReLU's alpha is one) like this.
    if value.get("type") == "ndarray" and "value" in value:
        return plain(value["value"])
    return {str(key): plain(item) for key, item in value.items()}
