"""Embeddings, positions and outputs: roles from the graph, one fact a test."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.handmade import H, Model, V, language_model, numbers, pairs, random, view
from tiesurgeon import find
from tiesurgeon.graph import Array, Graph, Layer, Storage, Value, Variable, View
from tiesurgeon.naming import says_other_ids

# --- embeddings and outputs -------------------------------------------------------------------


def test_an_output_over_the_vocabulary_is_offered_transposed() -> None:
    (found,) = find.candidates(language_model())
    assert (found.source, found.target, found.perm) == ("embedding", "out", (1, 0))
    assert (found.role, found.match) == ("embedding-output", "different")
    assert found.saves_bytes == H * V * 4
    assert found.relative_difference is not None
    assert found.relative_difference > 0.5


def test_equal_matrices_are_equal_only_bit_by_bit() -> None:
    table = numbers(V, H)
    kernel = np.ascontiguousarray(table.T)
    assert find.candidates(language_model(table, kernel))[0].match == "equal"
    kernel[2, 5] = np.nextafter(kernel[2, 5], np.float32(9))
    (found,) = find.candidates(language_model(table, kernel))
    assert found.match == "close"


def test_without_values_no_weight_is_read() -> None:
    def refuse() -> Array:
        raise AssertionError("a weight was read")

    storages = [Storage(f"{n}", shape, np.dtype("f4"), refuse) for n, shape in
                enumerate([(V, H), (H, V), (H, V)])]  # fmt: skip
    model = Model()
    layers = [
        Layer(name, op, views=(View(role, Variable(name, storage)),))
        for name, op, role, storage in zip(
            ("embedding", "a", "out"), ("Embedding", "Dense", "Dense"),
            ("embeddings", "kernel", "kernel"), storages, strict=True,
        )
    ]  # fmt: skip
    x = model.call(layers[0], model.input())
    model.call(layers[1], x)
    (found,) = find.candidates(model.graph(model.call(layers[2], x)), values=False)
    assert (found.match, found.relative_difference, found.cosine) == (None, None, None)
    assert found.target == "out"


@pytest.mark.parametrize(
    "between",
    ["Activation", "Softmax", "Dropout", "Reshape", "Masking", "LogSoftmax", "Cast"],
)
def test_an_output_may_be_followed_by_what_mixes_no_columns(between: str) -> None:
    model = Model()
    x = model.dense("out", model.embedding("embedding", model.input()))
    assert pairs(model.graph(model.op(between, x)))


def test_an_output_as_wide_as_the_table_is_not_over_its_vocabulary() -> None:
    model = Model()
    x = model.op("LSTM", model.embedding("embedding", model.input()))
    assert pairs(model.graph(model.dense("out", x, numbers(V, H)))) == []


@pytest.mark.parametrize("after", ["LSTM", "Conv1D", "BatchNormalization", "Concatenate"])
def test_a_projection_that_something_is_computed_from_is_no_output(after: str) -> None:
    model = Model()
    x = model.dense("inside", model.embedding("embedding", model.input()))
    assert pairs(model.graph(model.op(after, x))) == []


def test_a_projection_without_a_way_to_the_outputs_is_no_output() -> None:
    model = Model()
    x = model.embedding("embedding", model.input())
    model.dense("aside", x)
    assert pairs(model.graph(model.op("LSTM", x))) == []


def test_another_models_table_has_no_way_to_the_output() -> None:
    model = Model()
    x = model.embedding("mine", model.input("a"))
    other = model.embedding("other", model.input("b"), numbers(V, H))
    graph = model.graph(model.dense("out", x), model.op("LSTM", other))
    assert ("mine", "out", "embedding-output") in pairs(graph)
    assert ("other", "out", "embedding-output") not in pairs(graph)


def test_a_square_step_inside_is_not_offered() -> None:
    model = Model()
    x = model.embedding("embedding", model.input(), numbers(V, V))
    x = model.dense("inside", x, numbers(V, V))
    graph = model.graph(model.dense("out", model.op("LSTM", x), numbers(V, V)))
    assert pairs(graph) == [("embedding", "out", "embedding-output")]


def test_a_square_residual_step_at_the_end_is_no_output() -> None:
    model = Model()
    x = model.embedding("embedding", model.input(), numbers(V, V))
    step = model.dense("step", x, numbers(V, V))
    assert pairs(model.graph(model.op("Add", [x, step]))) == []


def test_a_bias_added_after_the_output_is_no_residual_step() -> None:
    model = Model()
    ids = model.input()
    logits = model.dense("out", model.op("LSTM", model.embedding("embedding", ids)))
    bias = model.embedding("bias", model.op("Rescaling", ids), numbers(1, V))
    assert pairs(model.graph(model.op("Add", [logits, bias]))) == [
        ("embedding", "out", "embedding-output")
    ]


def test_a_square_pair_equal_the_other_way_round_is_a_duplicate_without_transpose() -> None:
    table = numbers(V, V)
    (found,) = find.candidates(language_model(table, table.copy()))
    assert (found.match, found.perm, found.role) == ("equal", None, "duplicate")
    (found,) = find.candidates(language_model(table, np.ascontiguousarray(table.T)))
    assert (found.match, found.perm, found.role) == ("equal", (1, 0), "embedding-output")


def test_a_one_step_einsum_is_a_projection() -> None:
    for equation, expected in (("abc,cd->abd", 1), ("abc,dc->abd", 0), ("abc,cd->adb", 0)):
        model = Model()
        x = model.embedding("embedding", model.input())
        views = (view("out", numbers(H, V), "kernel"),)
        layer = Layer("out", "EinsumDense", {"equation": equation}, views)
        assert len(pairs(model.graph(model.call(layer, x)))) == expected


def test_masks_carry_no_content() -> None:
    model = Model()
    table = model.embedding("embedding", model.input())
    x = model.op("LSTM", model.input("features"), mask=table)
    assert pairs(model.graph(model.dense("out", x))) == []


def test_integer_weights_are_left_alone() -> None:
    table = random.integers(-9, 9, (V, H)).astype(np.int8)
    assert pairs(language_model(table, np.ascontiguousarray(table.T))) == []


# --- positions --------------------------------------------------------------------------------


def added(model: Model, ids: Value, positions: Any, name: str = "second") -> Graph:
    x = model.op("Add", [model.embedding("first", ids), model.embedding(name, positions)])
    return model.graph(model.dense("out", model.op("LSTM", x)))


def from_cumsum(model: Model, ids: Value) -> Any:
    ones = model.op("OnesLike", ids)
    return model.op("Subtract", model.op("Cumsum", ones), 1)


def from_input(model: Model, ids: Value) -> Any:
    return model.input("position_ids")


def from_arange(model: Model, ids: Value) -> Any:
    return model.op("Arange", 7)


def from_constants(model: Model, ids: Value) -> Any:
    return [[0, 1, 2]]


def from_custom_layer(model: Model, ids: Value) -> Any:
    return model.op("PositionIds", ids, name="custom")


@pytest.mark.parametrize(
    "positions", [from_cumsum, from_input, from_arange, from_constants, from_custom_layer]
)
def test_a_position_table_of_the_same_shape_is_not_offered(
    positions: Callable[[Model, Value], Any],
) -> None:
    model = Model()
    ids = model.input()
    found = pairs(added(model, ids, positions(model, ids)))
    assert found == [("first", "out", "embedding-output")]


@pytest.mark.parametrize("positions", [from_cumsum, from_input, from_arange])
def test_a_position_table_that_is_concatenated_is_not_offered_either(
    positions: Callable[[Model, Value], Any],
) -> None:
    model = Model()
    ids = model.input()
    x = model.embedding("second", positions(model, ids))
    x = model.op("Concatenate", [model.embedding("first", ids), x])
    graph = model.graph(model.dense("out", model.op("LSTM", x)))
    assert pairs(graph) == [("first", "out", "embedding-output")]


def test_of_two_added_tables_the_name_tells() -> None:
    model = Model()
    graph = added(model, model.input("a"), model.input("b"), name="pos_embedding")
    assert pairs(graph) == [("first", "out", "embedding-output")]


def test_of_two_added_tables_the_one_looked_up_directly_is_that_of_the_tokens() -> None:
    model = Model()
    ids = model.input()
    graph = added(model, ids, model.op("Lambda", ids))
    assert pairs(graph) == [("first", "out", "embedding-output")]


def test_two_added_tables_that_nothing_tells_apart_are_both_offered_with_a_caveat() -> None:
    model = Model()
    found = find.candidates(added(model, model.input("a"), model.input("b")))
    assert {c.source for c in found} == {"first", "second"}
    assert all("may hold positions" in c.reason for c in found)
    assert {c.role for c in found} == {"embedding-output"}


def test_a_segment_table_is_not_that_of_an_output_of_its_size() -> None:
    model = Model()
    first = model.embedding("first", model.input("a"), numbers(V, H))
    second = model.embedding("second", model.input("b"), numbers(2, H))
    x = model.op("LSTM", model.op("Add", [first, second]))
    assert pairs(model.graph(model.dense("out", x, numbers(H, 2)))) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("position_embedding", True), ("pos", True), ("pos_emb", True), ("embed_positions", True),
        ("wpe", True), ("token_type_embeddings", True), ("segment", True),
        ("relative_attention_bias", True), ("rel_pos", True), ("encoder.pe", True),
        ("relu", False), ("speaker", False), ("compose", False),
        ("positive", False), ("words", False), ("deposit", False),
    ],
)  # fmt: skip
def test_names_that_say_position_or_segment(name: str, expected: bool) -> None:
    assert says_other_ids(name) is expected
