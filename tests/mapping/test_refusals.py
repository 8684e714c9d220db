"""What cannot be converted is refused by name, with the way to add it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.rooms.pytorch.code.graphs import chain, layer, variable
from tiesurgeon.errors import UnmappedLayer
from tiesurgeon.graph import Graph, Layer, View
from tiesurgeon.mapping.registry import Pair, layer_pair
from tiesurgeon.mapping.to_torch import to_torch


def _refused(graph: Graph) -> str:
    with pytest.raises(UnmappedLayer) as caught:
        to_torch(graph)
    message = str(caught.value)
    assert "\n" not in message
    return message


def _one(op: str, config: dict[str, Any], **more: Any) -> Graph:
    return chain("m", (Layer("odd", op, config, **more),), (None, 5), "float32")


def test_an_unknown_layer_is_named_with_the_way_to_add_it() -> None:
    message = _refused(_one("Wibble", {}, entry={"registered_name": "mine>Wibble"}))
    assert "'odd' (mine>Wibble)" in message
    assert '@layer_pair(keras="Wibble"' in message


def test_an_unknown_operation_is_named() -> None:
    message = _refused(_one("Cholesky", {}, entry={"module": "keras.src.ops.linalg"}))
    assert '@layer_pair(keras="ops.Cholesky"' in message


def test_a_lambda_is_refused_for_what_it_is() -> None:
    assert "'odd' (Lambda) holds Python code" in _refused(_one("Lambda", {"function": "..."}))


@pytest.mark.parametrize(
    ("op", "config", "entry"),
    [
        ("Activation", {"activation": "wobble"}, "activation 'wobble'"),
        ("UpSampling2D", {"size": 2, "interpolation": "lanczos5"}, "interpolation='lanczos5'"),
        ("Rescaling", {"scale": 2.0, "wobble": 1}, "wobble=1"),
        ("AlphaDropout", {"rate": 0.1, "noise_shape": [1, 2]}, "noise_shape=[1, 2]"),
        ("Identity", {"dtype": {"class_name": "QuantizedDTypePolicy"}}, "a quantized dtype"),
    ],
)
def test_an_option_without_counterpart_is_named(
    op: str, config: dict[str, Any], entry: str
) -> None:
    shape = (None, 5, 5, 3) if op == "UpSampling2D" else (None, 5)
    message = _refused(chain("m", (Layer("odd", op, config),), shape, "float32"))
    assert f"layer 'odd' ({op}): {entry}" in message
    assert f'@layer_pair(keras="{op}' in message


def test_options_that_are_off_do_not_matter() -> None:
    config = {
        "scale": 2.0,
        "wobble": None,
        "wibble": False,
        "kernel_constraint": {"class_name": "x"},
    }
    assert to_torch(_one("Rescaling", config))


def test_a_stateful_recurrence_is_refused() -> None:
    weights = {
        "kernel": variable("k", 5, 12),
        "recurrent_kernel": variable("r", 3, 12),
    }
    lstm = layer("odd", "LSTM", {"units": 3, "stateful": True}, **weights)
    assert "stateful=True" in _refused(chain("m", (lstm,), (2, 7, 5), "float32"))


def test_a_weight_that_nobody_asks_for_is_refused() -> None:
    dense = layer(
        "odd", "Dense", {"units": 3}, kernel=variable("k", 5, 3), lora_kernel_a=variable("a", 5, 2)
    )
    message = _refused(chain("m", (dense,), (None, 5), "float32"))
    assert "'odd' (Dense): its weight lora_kernel_a" in message


def test_weights_without_a_graph_are_refused() -> None:
    assert "no graph of layers" in _refused(Graph("w", "", (layer("d", "Dense", {}),)))


def test_a_tie_that_is_more_than_a_transpose_is_refused() -> None:
    table = variable("embeddings", 11, 3)
    layers = (
        layer("e", "Embedding", {"input_dim": 11, "output_dim": 3}, embeddings=table),
        layer("d", "Dense", {"units": 11}, kernel=View("kernel", table, reshape=(3, 11))),
    )
    assert "untie them first" in _refused(chain("m", layers, (None, 7), "int32"))


def test_a_recurrent_layer_tied_to_a_transpose_is_refused() -> None:
    kernel = variable("k", 3, 3)
    layers = (
        layer("d", "Dense", {"units": 3}, kernel=kernel),
        layer(
            "r",
            "SimpleRNN",
            {"units": 3, "activation": "tanh"},
            kernel=View("kernel", kernel, perm=(1, 0)),
            recurrent_kernel=variable("u", 3, 3),
        ),
    )
    message = _refused(chain("m", layers, (None, 7, 3), "float32"))
    assert "'r' (SimpleRNN): its weight_ih_l0 is the transpose of d.weight" in message


def test_the_table_refuses_a_second_entry() -> None:
    enter: Callable[[type[Pair]], type[Pair]] = layer_pair(keras="Dense", torch="nn.Linear")
    with pytest.raises(ValueError, match="Dense is in the table already"):
        enter(type("Other", (Pair,), {}))
