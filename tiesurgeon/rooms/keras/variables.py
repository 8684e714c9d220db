"""Which variables each built-in Keras layer has, and where `.keras` files keep them.

One line per class, in the order of `layer.weights`. A role is the layer's own name for
a variable; "query/kernel" is the kernel of a part that the layer makes for itself. Classes
that are not here are unknown: their variables are read as found. Checked against stock
Keras by `tests/rooms/keras/test_variables.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tiesurgeon.graph import Layer

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """A variable of a layer: `path` is that of its group in a `.keras` file, then `index`."""

    role: str
    path: str
    index: int
    trainable: bool = True

    @property
    def is_of_part(self) -> bool:
        """True for a variable of a part, such as the query projection of an attention layer."""
        return "/" in self.role


def _if(key: str, *, default: bool = True) -> Callable[[Config], bool]:
    return lambda config: bool(config.get(key, default))


def _always(_: Config) -> bool:
    return True


Rule = tuple[str, Callable[[Config], bool], bool]  # role, present?, trainable


def _own(*roles: str | Rule, path: str = "vars") -> Callable[[Config], list[Place]]:
    """Variables kept directly in the layer's (or its cell's) group."""
    rules: list[Rule] = [(r, _always, True) if isinstance(r, str) else r for r in roles]

    def places(config: Config) -> list[Place]:
        present = [(role, trainable) for role, test, trainable in rules if test(config)]
        return [Place(role, path, i, trainable) for i, (role, trainable) in enumerate(present)]

    return places


_BIAS: Rule = ("bias", _if("use_bias"), True)


def _recurrent(path: str) -> Callable[[Config], list[Place]]:
    return _own("kernel", "recurrent_kernel", _BIAS, path=path)


def _normalization(*extra: Rule) -> Callable[[Config], list[Place]]:
    return _own(("gamma", _if("scale"), True), ("beta", _if("center"), True), *extra)


def _frozen(role: str) -> Rule:
    return (role, _always, False)


def _attention(prefix: str) -> Callable[[Config], list[Place]]:
    def places(config: Config) -> list[Place]:
        roles = ("kernel", "bias") if config.get("use_bias", True) else ("kernel",)
        folders = {part: f"{prefix}{part}_dense" for part in ("query", "key", "value", "output")}
        parts = ["query", "key", "value", "output"]
        if config.get("use_gate"):
            parts.insert(2, "gate")
            folders["gate"] = "_gate_dense"
        return [
            Place(f"{part}/{role}", f"{folders[part]}/vars", i)
            for part in parts
            for i, role in enumerate(roles)
        ]

    return places


_RENORM: tuple[Rule, ...] = tuple(
    (role, _if("renorm", default=False), False)
    for role in ("moving_stddev", "renorm_mean", "renorm_stddev")
)


def _with_rank(matrix: str, *others: Rule) -> Callable[[Config], list[Place]]:
    """A matrix that may have LoRA's two thin ones beside it (then it is frozen), or be int8."""

    def places(config: Config) -> list[Place]:
        rank, is_int8 = bool(config.get("lora_rank")), quantisation(config) == "int8"
        rules: list[Rule] = [(matrix, _always, not (rank or is_int8)), *others]
        if is_int8:
            rules.append(_frozen(f"{matrix}_scale"))
        if rank:
            rules += [(f"lora_{matrix}_{side}", _always, True) for side in "ab"]
        return _own(*rules)(config)

    return places


_DENSE = _own("kernel", _BIAS)
_NOTHING = _own()

PLACES: dict[str, Callable[[Config], list[Place]]] = {
    "Embedding": _with_rank("embeddings"),
    "ReversibleEmbedding": _own(
        "embeddings", ("reverse_embeddings", lambda c: not c.get("tie_weights", True), True)
    ),
    "Dense": _with_rank("kernel", _BIAS),
    "EinsumDense": _with_rank("kernel", ("bias", lambda c: c.get("bias_axes") is not None, True)),
    "SeparableConv1D": _own("depthwise_kernel", "pointwise_kernel", _BIAS),
    "SeparableConv2D": _own("depthwise_kernel", "pointwise_kernel", _BIAS),
    "BatchNormalization": _normalization(
        _frozen("moving_mean"), _frozen("moving_variance"), *_RENORM
    ),
    "LayerNormalization": _normalization(),
    "GroupNormalization": _normalization(),
    "RMSNormalization": _own("scale"),
    "Normalization": _own(
        *((role, lambda c: c.get("mean") is None, False) for role in ("mean", "variance", "count"))
    ),
    "PReLU": _own("alpha"),
    "Attention": _own(
        ("scale", _if("use_scale", default=False), True),
        ("concat_score_weight", lambda c: c.get("score_mode") == "concat", True),
    ),
    "AdditiveAttention": _own(("scale", _if("use_scale"), True)),
    "MultiHeadAttention": _attention(""),
    "GroupQueryAttention": _attention("_"),
    "STFTSpectrogram": _own(
        ("real_kernel", lambda c: c.get("mode") != "imag", True),
        ("imag_kernel", lambda c: c.get("mode") != "real", True),
    ),
    **{f"Conv{d}D": _with_rank("kernel", _BIAS) for d in (1, 2, 3)},
    **{f"DepthwiseConv{d}D": _DENSE for d in (1, 2)},
    **{f"Conv{d}DTranspose": _DENSE for d in (1, 2, 3)},
    **{name: _recurrent("cell/vars") for name in ("SimpleRNN", "LSTM", "GRU")},
    **{f"ConvLSTM{d}D": _recurrent("cell/vars") for d in (1, 2, 3)},
    **{f"{name}Cell": _recurrent("vars") for name in ("SimpleRNN", "LSTM", "GRU")},
    # Its number 0 is the matrix of the layer it wraps, written a second time.
    "SpectralNormalization": lambda _: [Place("vector_u", "vars", 1, trainable=False)],
    # Wrappers that hold nothing beside what they wrap.
    **dict.fromkeys(("TimeDistributed", "Bidirectional", "RNN", "StackedRNNCells"), _NOTHING),
}

# Exported under one name, written under another (`__name__`).
_FILE_CLASSES = {"GroupQueryAttention": "GroupedQueryAttention"}


def quantisation(config: Config) -> str | None:
    """The way a layer's matrix is quantised ("int8", "int4", ...), or None."""
    policy = config.get("dtype")
    if isinstance(policy, Mapping) and isinstance(policy.get("config"), Mapping):
        mode = policy["config"].get("mode")
        return mode if isinstance(mode, str) else None
    return None


def is_built_in(layer: Layer) -> bool:
    """True for a class of Keras itself, False for a user's, even of the same name."""
    module, registered = layer.entry.get("module"), layer.entry.get("registered_name")
    if module is None:
        return registered is None
    return str(module).split(".")[0] == "keras"


def is_known(layer: Layer) -> bool:
    """True if the class is a built-in whose variables are listed here."""
    mode = quantisation(layer.config)
    # The other quantisations depend on block sizes; their variables are taken as found.
    return layer.op in PLACES and is_built_in(layer) and mode in (None, "int8")


def own_places(layer: Layer) -> list[Place]:
    """The variables the layer itself holds (not those it wraps or nests), in order."""
    return PLACES[layer.op](layer.config) if is_known(layer) else []


def inner_paths(layer: Layer) -> Iterator[tuple[str, Layer]]:
    """Wrapped layers with the path of their group inside the wrapper's, in `.keras` files."""
    if layer.op == "Bidirectional" and len(layer.inner) == 2:
        yield "forward_layer", layer.inner[0]
        yield "backward_layer", layer.inner[1]
    elif layer.op == "RNN" and layer.inner:
        yield "cell", layer.inner[0]
    elif layer.op == "StackedRNNCells":
        yield from ((f"cells/{n}", cell) for n, cell in container_names(layer.inner))
    elif layer.inner:
        yield "layer", layer.inner[0]


def container_names(layers: tuple[Layer, ...]) -> Iterator[tuple[str, Layer]]:
    """Names Keras gives the members of a list: snake_case class, numbered from the second.

    Source: keras/src/saving/saving_lib.py, `_save_container_state`.
    """
    used: dict[str, int] = {}
    for layer in layers:
        name = snake_case(_file_class(layer))
        used[name] = used.get(name, -1) + 1
        yield (f"{name}_{used[name]}" if used[name] else name), layer


def _file_class(layer: Layer) -> str:
    dialect = layer.entry.get("dialect") or {}
    if "cudnn" in dialect:
        return f"CuDNN{layer.op}"
    name = layer.op.rsplit(">", 1)[-1]  # registered classes: "package>Class"
    return _FILE_CLASSES.get(name, name)


def snake_case(name: str) -> str:
    """As keras/src/utils/naming.py, `to_snake_case`: "LSTMCell" -> "lstm_cell"."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
