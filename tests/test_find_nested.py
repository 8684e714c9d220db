"""Nested models, layers that declare a tie, and files without a graph."""

from typing import Any

import pytest

from tests.handmade import H, Model, V, numbers, pairs, view
from tiesurgeon import find
from tiesurgeon.errors import UnreadableFile
from tiesurgeon.find.flow import unfold
from tiesurgeon.graph import Graph, Layer, Value, View

# --- nested models, declared ties, bare weights -----------------------------------------------


def nested(name: str, inner: Model, start: Value, *outputs: Value) -> Layer:
    return Layer(name, "Functional", body=inner.graph(*outputs, inputs=(start,)))


def test_the_way_from_table_to_output_leads_through_nested_models() -> None:
    below, head, model = Model(), Model(), Model()
    ids = below.input("inner_ids")
    base = nested("base", below, ids, below.op("LSTM", below.embedding("emb", ids)))
    start = head.input("hidden")
    top = nested("head", head, start, head.op("Softmax", head.dense("out", start)))
    x = model.call(top, model.call(base, model.input()))
    graph = model.graph(model.op("Dropout", x))
    assert pairs(graph) == [("emb", "out", "embedding-output")]
    assert [n.path for n in unfold(graph).nodes][-2:] == ["head/softmax", "dropout"]


def test_a_nested_models_input_of_another_order_is_not_mixed_up() -> None:
    inner, model = Model(), Model()
    one, two = inner.input("one"), inner.input("two")
    x = inner.op("LSTM", two)
    body = Layer("base", "Functional", body=inner.graph(x, one, inputs=(two, one)))
    table = model.embedding("emb", model.input())
    other = model.input("features")
    value = model.call(body, [table, other])
    assert pairs(model.graph(model.dense("out", value)))
    assert pairs(model.graph(model.dense("aside", Value(value.call, 1)))) == []


def test_a_projection_inside_a_wrapper_is_seen() -> None:
    model = Model()
    x = model.embedding("emb", model.input())
    inner = Layer("dense_out", "Dense", views=(view("dense_out", numbers(H, V), "kernel"),))
    graph = model.graph(model.call(Layer("out", "TimeDistributed", inner=(inner,)), x))
    assert pairs(graph) == [("emb", "out", "embedding-output")]


def test_a_model_that_calls_itself_up_to_astronomy_is_refused() -> None:
    layer = Layer("leaf", "Dropout")
    for depth in range(40):
        model = Model()
        x = model.input(f"i{depth}")
        twice = model.call(layer, model.call(layer, x))
        layer = Layer(f"m{depth}", "Functional", body=model.graph(twice, inputs=(x,)))
    model = Model()
    with pytest.raises(UnreadableFile, match="unfold"):
        find.candidates(model.graph(model.call(layer, model.input())))


def tied_layer(op: str = "TiedEmbeddingsTransposed", *views: View, **config: Any) -> Layer:
    return Layer("tied", op, config, views)


def declaring(layer: Layer) -> Graph:
    model = Model()
    x = model.op("LSTM", model.embedding("emb", model.input()))
    return model.graph(model.call(Layer("out", "TimeDistributed", inner=(layer,)), x))


def test_a_custom_layer_without_weights_that_says_tied_is_declared() -> None:
    (found,) = find.candidates(declaring(tied_layer()))
    assert (found.source, found.target, found.match) == ("emb", "out", "declared")
    assert (found.role, found.saves_bytes) == ("embedding-output", 0)


@pytest.mark.parametrize("value", ["emb", {"class_name": "Embedding", "config": {"name": "emb"}}])
def test_a_custom_layer_may_name_what_it_is_tied_to(value: Any) -> None:
    (found,) = find.candidates(declaring(tied_layer("Mine", tied_to=value)))
    assert (found.source, found.match) == ("emb", "declared")
    assert "names emb" in found.reason


def test_a_custom_layer_that_says_nothing_is_left_alone() -> None:
    assert pairs(declaring(tied_layer("Projection"))) == []
    assert pairs(declaring(tied_layer("Conv2DTranspose"))) == []


def test_a_declared_layer_that_holds_the_matrix_is_compared() -> None:
    held = view("tied", numbers(H, V), "0")
    (found,) = find.candidates(declaring(tied_layer("TiedEmbeddingsTransposed", held)))
    assert (found.match, found.perm) == ("different", (1, 0))


def test_tied_dense_layers_mirror_the_encoder() -> None:
    model = Model()
    x = model.dense("e1", model.input("x"), numbers(13, 7))
    x = model.dense("e2", x, numbers(7, 7))
    for name, units in (("t1", 7), ("t2", 13)):
        bias = view(name, numbers(units), "bias")
        x = model.call(Layer(name, "DenseTied", {"units": units}, (bias,)), x)
    graph = model.graph(x)
    assert {(c.source, c.target) for c in find.candidates(graph)} == {("e2", "t1"), ("e1", "t2")}


def test_bare_weights_are_judged_by_name_and_shape_and_say_so() -> None:
    layers = (
        Layer("embedding", "", views=(view("embedding", numbers(V, H), "embeddings"),)),
        Layer("position_embedding", "", views=(view("pos", numbers(V, H), "embeddings"),)),
        Layer("lstm", "", views=(view("lstm", numbers(H, V), "kernel"),
                                 view("lstm", numbers(H, V), "recurrent_kernel"))),
        Layer("dense", "", views=(view("dense", numbers(H, V), "kernel"),)),
    )  # fmt: skip
    (found,) = find.candidates(Graph("weights", "", layers))
    assert (found.source, found.target) == ("embedding", "dense")
    assert "no graph" in found.reason


def test_a_layer_shared_by_two_nested_models_and_written_twice_is_explained() -> None:
    table = numbers(V, H)
    layers = tuple(
        Layer(name, "Functional", body=Graph(name, "Functional", (Model().table("emb", array),)))
        for name, array in (("a", table), ("b", table.copy()))
    )
    (found,) = find.candidates(Graph("m", "Functional", layers))
    assert (found.source, found.target, found.match) == ("a/emb", "b/emb", "equal")
    assert "share twice" in found.reason


def test_tied_layers_that_fit_several_take_the_nearest_that_is_free() -> None:
    model = Model()
    x = model.input("x")
    for name in ("e1", "e2"):
        x = model.dense(name, x, numbers(7, 7))
    for name in ("t1", "t2"):
        x = model.call(Layer(name, "DenseTied"), x)
    found = find.candidates(model.graph(x))
    assert {(c.source, c.target) for c in found} == {("e2", "t1"), ("e1", "t2")}


def test_a_tied_layer_is_not_tied_to_one_of_another_width() -> None:
    model = Model()
    x = model.dense("e2", model.dense("e1", model.input("x"), numbers(13, 7)), numbers(7, 5))
    graph = model.graph(model.call(Layer("t", "DenseTied", {"units": 13}), x))
    assert [(c.source, c.target) for c in find.candidates(graph)] == [("e1", "t")]


def test_a_copy_of_the_source_that_a_tied_layer_drags_along_is_no_pair_of_its_own() -> None:
    table = numbers(V, H)
    model = Model()
    copy = view("tied", table.copy(), "embeddings")
    wrapper = Layer("out", "TimeDistributed", views=(copy,), inner=(tied_layer(),))
    x = model.op("LSTM", model.embedding("emb", model.input(), table))
    (found,) = find.candidates(model.graph(model.call(wrapper, x)))
    assert (found.source, found.target, found.match) == ("emb", "out", "declared")
    assert found.saves_bytes == table.nbytes
