"""How a model was compiled: in words of Keras 3, whichever file said it.

`.keras` calls it compile_config, `.h5` training_config with the optimizer apart. Keras 2's
names are brought up to date, so that stock Keras compiles what it loads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Training = Mapping[str, Any]

_OPTIMIZERS = frozenset(
    {
        "SGD", "RMSprop", "Adam", "AdamW", "Adadelta", "Adagrad", "Adamax", "Adafactor", "Nadam",
        "Ftrl", "Lion", "Lamb", "Muon", "LossScaleOptimizer",
    }
)  # fmt: skip
_PARTS = {"loss": "losses", "metrics": "metrics", "weighted_metrics": "metrics"}
# What Keras 2's optimizers said and Keras 3's do not take.
_GONE = frozenset({"decay", "jit_compile", "is_legacy_optimizer"})
# Words that stock Keras writes into .h5 and cannot find again there ("keras.metrics.mse").
_SHORT_LOSSES = {
    "bce": "binary_crossentropy",
    "kld": "kl_divergence",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "mse": "mean_squared_error",
    "msle": "mean_squared_logarithmic_error",
}
_REDUCTIONS = {"auto": "sum_over_batch_size"}


def as_compiled(stored: Any) -> Training | None:
    """What a file says of training as Keras 3's compile_config; None where that cannot be."""
    if not isinstance(stored, Mapping):
        return None
    optimizer = _optimizer(stored.get("optimizer_config") or stored.get("optimizer"))
    if optimizer is None:
        return None
    compiled = {"optimizer": optimizer, "loss_weights": stored.get("loss_weights")}
    for key, module in _PARTS.items():
        compiled[key] = _parts(stored.get(key), f"keras.{module}")
    for key in ("run_eagerly", "steps_per_execution", "jit_compile"):
        if stored.get(key) is not None:
            compiled[key] = stored[key]
    return compiled


def as_h5(training: Training) -> Training:
    """The same as `.h5` files put it."""
    optimizer = training.get("optimizer")
    rest = {key: value for key, value in training.items() if key != "optimizer"}
    if isinstance(optimizer, str):
        optimizer = {"class_name": optimizer, "config": {}}
    elif isinstance(optimizer, Mapping):
        optimizer = {key: optimizer.get(key) for key in ("class_name", "config")}
    return {**rest, "loss": _long_losses(training.get("loss")), "optimizer_config": optimizer}


def _long_losses(loss: Any) -> Any:
    if isinstance(loss, str):
        return _SHORT_LOSSES.get(loss.lower(), loss)
    if isinstance(loss, list):
        return [_long_losses(item) for item in loss]
    if isinstance(loss, Mapping) and "class_name" not in loss:
        return {key: _long_losses(item) for key, item in loss.items()}
    return loss


def _optimizer(stored: Any) -> Any:
    if isinstance(stored, str):
        return stored
    if not isinstance(stored, Mapping) or not isinstance(stored.get("config"), Mapping):
        return None
    name = str(stored.get("class_name")).removeprefix("Custom>")
    if name not in _OPTIMIZERS:
        # Someone's own: Keras 3 finds it if it is registered; older ones are of no use now.
        return dict(stored) if "module" in stored else None
    config = {key: value for key, value in stored["config"].items() if key not in _GONE}
    if "lr" in config:
        config.setdefault("learning_rate", config.pop("lr"))
    if config.get("epsilon", 0) is None:
        del config["epsilon"]
    return _object(name, config, "keras.optimizers")


def _parts(stored: Any, module: str) -> Any:
    """Losses or metrics in whatever lists and dicts they stand."""
    if isinstance(stored, list):
        return [_parts(item, module) for item in stored]
    if not isinstance(stored, Mapping):
        return stored
    if not isinstance(stored.get("class_name"), str):
        return {key: _parts(item, module) for key, item in stored.items()}
    config = stored.get("config")
    if not isinstance(config, Mapping):
        return dict(stored)
    if "module" in stored and not str(stored["module"]).startswith("keras."):
        return dict(stored)
    if stored["class_name"] in ("MeanMetricWrapper", "LossFunctionWrapper"):
        return config.get("fn")  # a function by its name
    config = {key: value for key, value in config.items() if key != "fn"}
    if config.get("reduction") in _REDUCTIONS:
        config["reduction"] = _REDUCTIONS[config["reduction"]]
    return _object(stored["class_name"], config, str(stored.get("module") or module))


def _object(class_name: str, config: Mapping[str, Any], module: str) -> dict[str, Any]:
    return {
        "module": module,
        "class_name": class_name,
        "config": config,
        "registered_name": None,
    }
