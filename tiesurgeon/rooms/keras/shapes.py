"""What a layer's config says about the shapes of its variables; None where it says nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Graph, Layer, Shape
from tiesurgeon.rooms.keras.variables import is_known, quantisation

Config = Mapping[str, Any]
Expected = tuple[int | None, ...]
Rules = dict[str, Callable[[Config], Expected | None]]


def expected_shape(layer: Layer, role: str) -> Expected | None:
    """The shape that the config fixes, None for each free dimension; None if it fixes nothing."""
    rule = _RULES.get(layer.op, {}).get(role)
    if rule is None or not is_known(layer) or quantisation(layer.config) is not None:
        return None
    try:
        return rule(layer.config)
    except (KeyError, TypeError, ValueError):  # the config does not say, or says nonsense
        return None


def fits(shape: Shape, expected: Expected | None) -> bool:
    """True if the shape is one that the config allows."""
    if expected is None:
        return True
    return len(shape) == len(expected) and all(
        want is None or have == want for have, want in zip(shape, expected, strict=True)
    )


def refuse_misfits(graph: Graph) -> None:
    """UnreadableFile if a variable's shape contradicts its layer's config."""
    for path, layer in graph.walk():
        for view in layer.views:
            expected = expected_shape(layer, view.role)
            if not fits(view.shape, expected):
                raise UnreadableFile(
                    f"weight {path}/{view.role} has shape {list(view.shape)}, but the config of "
                    f"{layer.op} {layer.name!r} asks for {told(expected)}; the file is damaged"
                )


def told(expected: Expected | None) -> str:
    """The shape in words, `?` for what the config leaves open."""
    return f"[{', '.join('?' if dim is None else str(dim) for dim in expected or ())}]"


def _of(*dims: str | int | None) -> Callable[[Config], Expected]:
    """Dimensions by the name of the config value, or as they are."""
    return lambda config: tuple(_int(config[d]) if isinstance(d, str) else d for d in dims)


def _int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(value)
    return value


def _gates(count: int) -> Rules:
    def kernel(config: Config) -> Expected:
        return None, count * _int(config["units"])

    def recurrent(config: Config) -> Expected:
        return _int(config["units"]), count * _int(config["units"])

    def bias(config: Config) -> Expected:
        width = count * _int(config["units"])
        # GRU's later kind keeps the bias of the input and of the state apart.
        return (2, width) if count == 3 and config.get("reset_after", True) else (width,)

    return {"kernel": kernel, "recurrent_kernel": recurrent, "bias": bias}


def _conv(rank: int, *, transposed: bool = False, gates: int = 1) -> Rules:
    def kernel(config: Config) -> Expected:
        filters = gates * _int(config["filters"])
        ends = (filters, None) if transposed else (None, filters)
        return (*_window(config, rank), *ends)

    def recurrent(config: Config) -> Expected:
        filters = _int(config["filters"])
        return (*_window(config, rank), filters, gates * filters)

    def bias(config: Config) -> Expected:
        return (gates * _int(config["filters"]),)

    return {"kernel": kernel, "bias": bias, "recurrent_kernel": recurrent}


def _depthwise(rank: int, role: str) -> Rules:
    def kernel(config: Config) -> Expected:
        return (*_window(config, rank), None, _int(config["depth_multiplier"]))

    return {role: kernel}


def _separable(rank: int) -> Rules:
    def pointwise(config: Config) -> Expected:
        return (*((1,) * rank), None, _int(config["filters"]))

    return {
        **_depthwise(rank, "depthwise_kernel"),
        "pointwise_kernel": pointwise,
        "bias": _of("filters"),
    }


def _window(config: Config, rank: int) -> Iterator[int]:
    size = config["kernel_size"]
    sizes = [size] * rank if isinstance(size, int) else list(size)
    if len(sizes) != rank:
        raise ValueError(size)
    return (_int(number) for number in sizes)


def _attention(query_heads: str, key_heads: str, width: str) -> Rules:
    rules: Rules = {}
    value = "value_dim" if width == "key_dim" else width
    for part, heads, size in (
        ("query", query_heads, width),
        ("key", key_heads, width),
        ("gate", query_heads, value),
        ("value", key_heads, value),
    ):
        rules[f"{part}/kernel"] = _of(None, heads, size)
        rules[f"{part}/bias"] = _of(heads, size)

    def output(config: Config) -> Expected | None:
        several = isinstance(config.get("output_shape"), list) and len(config["output_shape"]) != 1
        return None if several else _of(query_heads, value, None)(config)

    return {**rules, "output/kernel": output}


_RULES: dict[str, Rules] = {
    "Embedding": {"embeddings": _of("input_dim", "output_dim")},
    "ReversibleEmbedding": {
        "embeddings": _of("input_dim", "output_dim"),
        "reverse_embeddings": _of("output_dim", "input_dim"),
    },
    "Dense": {"kernel": _of(None, "units"), "bias": _of("units")},
    **{name: _gates(count) for name, count in (("SimpleRNN", 1), ("GRU", 3), ("LSTM", 4))},
    **{f"{name}Cell": _gates(n) for name, n in (("SimpleRNN", 1), ("GRU", 3), ("LSTM", 4))},
    **{f"Conv{rank}D": _conv(rank) for rank in (1, 2, 3)},
    **{f"Conv{rank}DTranspose": _conv(rank, transposed=True) for rank in (1, 2, 3)},
    **{f"ConvLSTM{rank}D": _conv(rank, gates=4) for rank in (1, 2, 3)},
    **{f"DepthwiseConv{rank}D": _depthwise(rank, "kernel") for rank in (1, 2)},
    **{f"SeparableConv{rank}D": _separable(rank) for rank in (1, 2)},
    "MultiHeadAttention": _attention("num_heads", "num_heads", "key_dim"),
    "GroupQueryAttention": _attention("num_query_heads", "num_key_value_heads", "head_dim"),
    "Normalization": {"count": _of()},
    **{
        name: dict.fromkeys(roles, _of(None))
        for name, roles in {
            "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
            "GroupNormalization": ("gamma", "beta"),
        }.items()
    },
}
