"""Pairs of embeddings, of Dense layers and of convolutions, and ties that are there already."""

import numpy as np
import pytest

from tests.handmade import H, Model, V, numbers, pairs, view
from tiesurgeon import find
from tiesurgeon.graph import Array, Graph, Layer, Value, Variable, View, in_memory

# --- sequence to sequence, several tables -----------------------------------------------------


def seq2seq(encoder: Array | None = None, decoder: Array | None = None) -> Graph:
    model = Model()
    source = model.embedding("source_words", model.input("a"), encoder)
    states = model.op("LSTM", source, name="encoder")
    target = model.embedding("target_words", model.input("b"), decoder)
    x = model.op("LSTM", target, name="decoder", initial_state=[Value(states.call, 1)])
    return model.graph(model.dense("out", x))


def test_the_decoders_table_comes_before_the_encoders() -> None:
    assert pairs(seq2seq()) == [
        ("target_words", "out", "embedding-output"),
        ("source_words", "out", "embedding-output"),
        ("source_words", "target_words", "embedding-embedding"),
    ]


def test_what_an_attention_looks_at_comes_in_from_the_side() -> None:
    model = Model()
    source = model.embedding("source_words", model.input("a"))
    x = model.embedding("target_words", model.input("b"))
    for step in range(3):
        x = model.op("LayerNormalization", x, name=f"norm_{step}")
    x = model.op("Attention", [x, source])
    assert pairs(model.graph(model.dense("out", x)))[0][0] == "target_words"


def test_equal_pairs_come_first() -> None:
    table = numbers(V, H)
    first = find.candidates(seq2seq(table, table.copy()))[0]
    assert (first.role, first.match) == ("embedding-embedding", "equal")


def test_many_tables_of_one_size_are_categories() -> None:
    model = Model()
    looked_up = [model.embedding(f"t{n}", model.input(f"i{n}")) for n in range(5)]
    graph = model.graph(model.op("Concatenate", looked_up))
    assert pairs(graph) == []


def test_of_many_tables_the_equal_ones_are_still_found() -> None:
    table = numbers(V, H)
    model = Model()
    arrays = [numbers(V, H), table, numbers(V, H), numbers(V, H), table.copy()]
    looked_up = [model.embedding(f"t{n}", model.input(f"i{n}"), a) for n, a in enumerate(arrays)]
    (found,) = find.candidates(model.graph(model.op("Concatenate", looked_up)))
    assert (found.source, found.target, found.role) == ("t1", "t4", "embedding-embedding")


# --- dense layers and convolutions ------------------------------------------------------------


def chain(*arrays: Array, width: int | None = None) -> Graph:
    model = Model()
    x = model.input("x")
    for number, array in enumerate(arrays):
        x = model.dense(f"d{number}", x, array)
    return model.graph(x)


def test_the_layers_of_an_autoencoder_are_paired_from_the_outside_in() -> None:
    graph = chain(numbers(13, 7), numbers(7, 5), numbers(5, 7), numbers(7, 13))
    assert pairs(graph) == [("d0", "d3", "dense-dense"), ("d1", "d2", "dense-dense")]


def test_of_several_layers_that_fit_the_outermost_is_the_mate() -> None:
    shapes = (13, 7), (7, 5), (5, 7), (7, 5), (5, 7), (7, 13)
    found = [pair[:2] for pair in pairs(chain(*(numbers(*shape) for shape in shapes)))]
    assert found[0] == ("d0", "d5")
    assert set(found) == {("d0", "d5"), ("d1", "d4"), ("d2", "d3")}


@pytest.mark.parametrize("place", ["before", "after"])
def test_an_autoencoder_reads_an_input_and_returns_it(place: str) -> None:
    model = Model()
    x = model.input("x")
    x = model.op("LSTM", x) if place == "before" else x
    x = model.dense("b", model.dense("a", x, numbers(7, 5)), numbers(5, 7))
    assert pairs(model.graph(model.op("GRU", x) if place == "after" else x)) == []


def test_a_narrowing_inside_a_classifier_is_no_autoencoder() -> None:
    assert pairs(chain(numbers(13, 7), numbers(7, 5), numbers(5, 7), numbers(7, 2))) == []


def test_square_layers_are_offered_only_if_their_values_are_alike() -> None:
    square = numbers(7, 7)
    outer = numbers(13, 7), numbers(7, 13)
    assert len(pairs(chain(outer[0], square, numbers(7, 7), outer[1]))) == 1
    found = find.candidates(chain(outer[0], square, np.ascontiguousarray(square.T), outer[1]))
    assert (found[0].source, found[0].target, found[0].role) == ("d1", "d2", "dense-dense")
    rounded = square.T.astype(np.float16).astype(np.float32)
    found = find.candidates(chain(outer[0], square, rounded, outer[1]))
    assert (found[0].match, found[0].perm) == ("close", (1, 0))


def convolutions(one: Array, two: Array, second: str = "Conv2D") -> Graph:
    model = Model()
    x = model.call(Layer("a", "Conv2D", views=(view("a", one, "kernel"),)), model.input("x"))
    x = model.call(Layer("b", second, views=(view("b", two, "kernel"),)), x)
    return model.graph(x)


def test_convolutions_are_offered_only_if_their_values_are_alike() -> None:
    kernel = numbers(3, 3, 2, 5)
    near = (kernel * np.float32(1.01)).astype(np.float32)
    assert pairs(convolutions(kernel, numbers(3, 3, 2, 5))) == []
    far = (kernel * np.float32(1.1)).astype(np.float32)
    assert pairs(convolutions(kernel, far)) == []
    assert pairs(convolutions(kernel, kernel.copy())) == [("a", "b", "conv-conv")]
    assert pairs(convolutions(kernel, near)) == [("a", "b", "conv-conv")]
    transposed = convolutions(kernel, near, "Conv2DTranspose")
    assert pairs(transposed) == [("a", "b", "conv-convtranspose")]


# --- ties -------------------------------------------------------------------------------------


def test_a_layer_called_twice_is_a_tie_and_no_candidate() -> None:
    model = Model()
    table = model.table("emb")
    graph = model.graph(*(model.call(table, model.input(name)) for name in "ab"))
    name = "emb/embeddings"
    assert find.ties(graph) == (find.Tie(name, name, None, "tie", 2),)
    assert pairs(graph) == []


def test_two_layers_that_see_one_variable_are_tied_through_a_transpose() -> None:
    model = Model()
    table = model.table("emb")
    x = model.call(table, model.input())
    kernel = View("kernel", table.views[0].variable, (1, 0))
    graph = model.graph(model.call(Layer("out", "Dense", views=(kernel,)), x))
    assert find.ties(graph) == (find.Tie("emb/embeddings", "out/kernel", (1, 0), "tie", 2),)
    assert pairs(graph) == []


def test_a_reversible_embedding_called_backwards_is_a_tie() -> None:
    model = Model()
    table = Layer("emb", "ReversibleEmbedding", views=model.table("emb").views)
    x = model.op("LSTM", model.call(table, model.input()))
    (tie,) = find.ties(model.graph(model.call(table, x, reverse=True)))
    assert (tie.perm, tie.uses) == ((1, 0), 2)


def test_two_variables_on_one_storage_are_an_alias_and_offered() -> None:
    storage = in_memory("one", numbers(V, H))
    layers = tuple(
        Layer(n, "Embedding", views=(View("embeddings", Variable(n, storage)),)) for n in "ab"
    )
    model = Model()
    looked_up = [model.call(layer, model.input(f"i{layer.name}")) for layer in layers]
    graph = model.graph(model.op("Concatenate", looked_up))
    (tie,) = find.ties(graph)
    assert (tie.source, tie.target, tie.kind) == ("a/embeddings", "b/embeddings", "alias")
    (found,) = find.candidates(graph)
    assert (found.match, found.saves_bytes) == ("equal", 0)


def test_a_reversible_embedding_called_twice_forward_is_not_transposed() -> None:
    model = Model()
    table = Layer("emb", "ReversibleEmbedding", views=model.table("emb").views)
    (tie,) = find.ties(model.graph(*(model.call(table, model.input(name)) for name in "ab")))
    assert (tie.perm, tie.uses) == (None, 2)


def test_transposed_layers_side_by_side_are_a_duplicate() -> None:
    model = Model()
    array = numbers(7, 5)
    a = model.dense("a", model.input("x"), array)
    b = model.dense("b", model.input("y"), np.ascontiguousarray(array.T))
    assert pairs(model.graph(a, b)) == [("a", "b", "duplicate")]


def test_what_is_equal_to_one_output_is_not_listed_with_each_other_too() -> None:
    model = Model()
    table = numbers(V, H)
    looked_up = [model.embedding(f"t{n}", model.input(f"i{n}"), table.copy()) for n in range(4)]
    x = model.op("LSTM", model.op("Concatenate", looked_up))
    graph = model.graph(model.dense("out", x, np.ascontiguousarray(table.T)))
    assert pairs(graph) == [(f"t{n}", "out", "embedding-output") for n in range(4)]


def test_of_pairs_of_one_kind_the_larger_comes_first() -> None:
    model = Model()
    outputs = [
        model.dense(name + end, model.input(f"{name}{end}_x"), array.copy())
        for name, rows in (("small", 5), ("large", 13), ("middle", 7))
        for array in [numbers(rows, 3)]
        for end in "ab"
    ]
    assert [found[0] for found in pairs(model.graph(*outputs))] == ["largea", "middlea", "smalla"]
