"""The parts that layers are made of: initializers, regularizers, constraints, dtypes."""

from typing import Any

from tiesurgeon.rooms.keras.dialects.catalogue import is_keras_module, words
from tiesurgeon.rooms.keras.dialects.draft import Draft

_KNOWN = {
    "initializers": words(
        """
        Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer
        LecunNormal LecunUniform Ones Orthogonal OrthogonalInitializer RandomNormal RandomUniform
        TruncatedNormal VarianceScaling Zeros
        """
    ),
    "regularizers": frozenset(("L1", "L1L2", "L2", "OrthogonalRegularizer")),
    "constraints": frozenset(("MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm")),
}
# Keras 1's names; its part configs carry them as "name" beside the values.
_ALIASES = {
    "L1L2Regularizer": "L1L2",
    "WeightRegularizer": "L1L2",
    "ActivityRegularizer": "L1L2",
    "maxnorm": "MaxNorm",
    "nonneg": "NonNeg",
    "unitnorm": "UnitNorm",
}
# TF 1's names of functions that were serialised by their Python name.
_ACTIVATIONS = {"softmax_v2": "softmax", "log_softmax_v2": "log_softmax"}
_PLAIN_POLICIES = ("Policy", "PolicyV1", "DTypePolicy", "FloatDTypePolicy")


def modernise_parts(draft: Draft) -> None:
    """Brings the parts named in a layer's config into Keras 3's form."""
    config = draft.config
    for key in list(config):
        value = config[key]
        for kind in _KNOWN:
            if key.endswith(kind[:-1]) and isinstance(value, dict):
                config[key] = _part(value, kind)
        if key.endswith("activation"):
            config[key] = _activation(value)
            if value == "<lambda>":
                draft.note(f"{key} was Python code that no config holds")
    _modernise_dtype(config)
    if draft.context.major < 3:
        _flag_hard_sigmoid(draft)


def dtype_name(value: Any) -> str | None:
    """The dtype of the numbers that a layer with this dtype or policy is given, if it is named."""
    name = _plain_dtype(value)
    if not isinstance(name, str):
        return None
    return "float32" if name.startswith("mixed_") else name


def _part(value: dict[str, Any], kind: str) -> dict[str, Any]:
    if "class_name" not in value and isinstance(value.get("name"), str):  # Keras 1
        config = {key: item for key, item in value.items() if key != "name"}
        if "m" in config:
            config["max_value"] = config.pop("m")
        value = {"class_name": value["name"], "config": config}
    class_name = _ALIASES.get(value.get("class_name", ""), value.get("class_name"))
    config = value.get("config") or {}
    module = value.get("module")
    if class_name not in _KNOWN[kind] or not (module is None or is_keras_module(module)):
        return value
    if kind == "initializers":
        # tf.keras of TF 1 wrote these; Keras 3's constructors refuse them.
        config = {k: v for k, v in config.items() if k not in ("dtype", "partition_info")}
        if config.get("distribution") == "normal":  # Keras 2.0's word
            config["distribution"] = "truncated_normal"
    return {
        "module": f"keras.{kind}",
        "class_name": class_name,
        "config": config,
        "registered_name": None,
    }


def _activation(value: Any) -> Any:
    if isinstance(value, dict) and value.get("class_name") == "function":
        named = is_keras_module(value.get("module")) and isinstance(value.get("config"), str)
        value = value["config"] if named else value
    return _ACTIVATIONS.get(value, value) if isinstance(value, str) else value


def _modernise_dtype(config: dict[str, Any]) -> None:
    if "dtype" in config:
        config["dtype"] = _plain_dtype(config["dtype"])
        if config["dtype"] in ("infer", "_infer", None):  # TF 1's policies
            del config["dtype"]


def _plain_dtype(value: Any) -> Any:
    if isinstance(value, dict) and value.get("class_name") in _PLAIN_POLICIES:
        inner = value.get("config")
        return inner.get("name") if isinstance(inner, dict) else None
    return value


def _flag_hard_sigmoid(draft: Draft) -> None:
    for key, value in draft.config.items():
        if key.endswith("activation") and value == "hard_sigmoid":
            draft.dialect["hard_sigmoid"] = "0.2x+0.5"
            draft.note(f"{key} hard_sigmoid is the Keras 2 one (0.2 x + 0.5)")
