"""Small Keras graphs written out by hand: no framework, no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tiesurgeon.graph import Call, Graph, Layer, Value, Variable, View, in_memory

V, H = 11, 3


def variable(name: str, *shape: int, seed: int = 0, trainable: bool = True) -> Variable:
    """A variable of random numbers."""
    array = np.random.default_rng(seed).normal(0, 0.5, shape).astype("float32")
    return Variable(name, in_memory(name, array), trainable)


def layer(name: str, op: str, config: Mapping[str, Any], **variables: Variable | View) -> Layer:
    """A Keras layer that sees these variables."""
    views = tuple(
        replace(seen, role=role) if isinstance(seen, View) else View(role, seen)
        for role, seen in variables.items()
    )
    return Layer(name, op, config, views, entry={"module": "keras.layers"})


def chain(name: str, layers: Sequence[Layer], shape: tuple[int | None, ...], dtype: str) -> Graph:
    """A model of one input whose layers follow each other."""
    first = Layer("ids", "InputLayer", {"batch_shape": shape, "dtype": dtype})
    calls = [Call("ids", "ids")]
    for one in layers:
        calls.append(Call(one.name, one.name, (Value(calls[-1].id),)))
    ends = Value("ids"), Value(calls[-1].id)
    return Graph(name, "Functional", (first, *layers), tuple(calls), *ends)


def language_model(*, tied: bool = True, **embedding: Any) -> Graph:
    """Embedding, LSTM and a softmax over the vocabulary, tied to the table or not."""
    table = variable("embeddings", V, H)
    kernel = View("kernel", table, perm=(1, 0)) if tied else variable("kernel", H, V, seed=1)
    config = {"input_dim": V, "output_dim": H, **embedding}
    lstm = {"units": H, "activation": "tanh", "recurrent_activation": "sigmoid"}
    layers = (
        layer("embedding", "Embedding", config, embeddings=table),
        layer(
            "lstm",
            "LSTM",
            {**lstm, "return_sequences": True},
            kernel=variable("k", H, 4 * H, seed=2),
            recurrent_kernel=variable("r", H, 4 * H, seed=3),
            bias=variable("b", 4 * H, seed=4),
        ),
        layer(
            "dense",
            "Dense",
            {"units": V, "activation": "softmax"},
            kernel=kernel,
            bias=variable("bias", V, seed=5),
        ),
    )
    return chain("char_lm", layers, (None, None), "int32")


def autoencoder() -> Graph:
    """A decoder that is the transpose of its encoder, each with a bias of its own."""
    kernel = variable("kernel", 5, 3)
    layers = (
        layer(
            "encoder",
            "Dense",
            {"units": 3, "activation": "relu"},
            kernel=kernel,
            bias=variable("encoder_bias", 3, seed=1),
        ),
        layer(
            "decoder",
            "Dense",
            {"units": 5, "activation": "sigmoid"},
            kernel=View("kernel", kernel, perm=(1, 0)),
            bias=variable("decoder_bias", 5, seed=2),
        ),
    )
    return chain("autoencoder", layers, (None, 5), "float32")


def two_models_over_one_table() -> Graph:
    """Two nested models whose embeddings are one variable."""
    table = variable("embeddings", V, H)

    def inner(name: str) -> Layer:
        embedding = layer(
            "embedding", "Embedding", {"input_dim": V, "output_dim": H}, embeddings=table
        )
        dense = layer("dense", "Dense", {"units": 2}, kernel=variable(name, H, 2))
        return Layer(name, "Functional", body=chain(name, (embedding, dense), (None, 7), "int32"))

    ids = Layer("ids", "InputLayer", {"batch_shape": (None, 7), "dtype": "int32"})
    add = layer("add", "Add", {})
    calls = (
        Call("ids", "ids"),
        Call("a", "a", (Value("ids"),)),
        Call("b", "b", (Value("ids"),)),
        Call("add", "add", ([Value("a"), Value("b")],)),
    )
    layers = (ids, inner("a"), inner("b"), add)
    return Graph("two", "Functional", layers, calls, Value("ids"), Value("add"))


def residual() -> Graph:
    """Three Dense layers, the first one's output added at the end."""

    def dense(name: str, seed: int, activation: str) -> Layer:
        config = {"units": 5, "activation": activation}
        return layer(name, "Dense", config, kernel=variable(name, 5, 5, seed=seed))

    layers = (dense("a", 0, "relu"), dense("b", 1, "linear"), dense("c", 2, "relu"))
    graph = chain("residual", layers, (None, 5), "float32")
    add = Call("add", "add", ([Value("a"), Value("c")],))
    return replace(
        graph,
        layers=(*graph.layers, layer("add", "Add", {})),
        calls=(*graph.calls, add),
        outputs=Value("add"),
    )
