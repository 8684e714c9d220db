"""How alike matrices are, and which of many are the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.handmade import H, Model, V, language_model, numbers, view
from tiesurgeon import find
from tiesurgeon.graph import Array, Graph, Layer, Variable, View, in_memory

# --- duplicates -------------------------------------------------------------------------------


def test_duplicates_pair_the_table_with_each_equal_matrix() -> None:
    table = numbers(V, H)
    model = Model()
    ids = model.input()
    x = model.dense("first", model.op("LSTM", model.embedding("other", ids)), table.T.copy())
    y = model.embedding("table", ids, table)
    graph = model.graph(x, y, model.embedding("third", ids, table.copy()))
    assert set(find.duplicates(graph)) == {("table", "first"), ("table", "third")}


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_matrices_of_one_number_are_no_duplicates(value: float) -> None:
    same = np.full((V, H), value, np.float32)
    assert find.duplicates(language_model(same, same.T.copy())) == ()


def test_a_matrix_that_looks_constant_in_the_sample_is_looked_at_as_a_whole() -> None:
    table = np.zeros((101, 37), np.float32)
    table[50, 17] = 1.0
    assert find.duplicates(language_model(table, table.T.copy())) == (("embedding", "out"),)


def test_one_number_outside_the_sample_makes_a_difference() -> None:
    table = numbers(101, 37)
    kernel = table.T.copy()
    kernel[17, 50] += 1
    assert find.duplicates(language_model(table, kernel)) == ()


def test_vectors_integers_and_optimizer_slots_are_no_duplicates() -> None:
    array = numbers(V, H)
    slot = View("m", Variable("b/m", in_memory("m", array.copy()), kind="optimizer slot"))
    layers = (
        Layer("a", "Custom", views=(view("a", array, "w"), view("a", array[0], "v"))),
        Layer("b", "Custom", views=(slot, view("b", array[0].copy(), "v"))),
        Layer("c", "Custom", views=(view("c", np.arange(33).reshape(V, H), "w"),)),
        Layer("d", "Custom", views=(view("d", np.arange(33).reshape(V, H), "w"),)),
    )
    assert find.duplicates(Graph("m", "", layers)) == ()


def test_nan_equals_itself_and_minus_zero_is_not_zero() -> None:
    table = numbers(V, H)
    table[1, 1] = np.nan
    assert len(find.duplicates(language_model(table, table.T.copy()))) == 1
    table[1, 1] = 0.0
    kernel = table.T.copy()
    kernel[1, 1] = -0.0
    assert find.duplicates(language_model(table, kernel)) == ()


# --- comparing --------------------------------------------------------------------------------


def compared(a: Array, b: Array, perm: tuple[int, ...] | None = None) -> find.Comparison:
    return find.compare(view("a", a, "w"), view("b", b, "w"), perm)


def test_the_relative_difference_and_the_cosine_are_those_of_the_whole() -> None:
    a, b = numbers(5003, 53), numbers(5003, 53)
    found = compared(a, np.ascontiguousarray(b.T), (1, 0))
    x, y = a.astype(float), b.astype(float)
    cosines = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert found.relative_difference == pytest.approx(
        np.linalg.norm(x - y) / np.linalg.norm(x), rel=1e-12
    )
    assert found.cosine == pytest.approx(cosines.mean(), rel=1e-9)


def test_a_padding_row_of_zeros_has_no_cosine() -> None:
    a = numbers(V, H)
    a[0] = 0
    assert compared(a, a * np.float32(2)).cosine == pytest.approx(1.0)
    assert compared(np.zeros((V, H), np.float32), a).relative_difference == pytest.approx(1.0)


def test_numbers_that_are_not_finite_give_no_distance() -> None:
    a = numbers(V, H)
    b = a.copy()
    b[3, 2] = np.inf
    assert compared(a, b) == find.Comparison("different", None, None)


def test_another_dtype_is_close_at_best() -> None:
    a = numbers(V, H)
    assert compared(a, a.astype(np.float16)).match == "close"
    assert compared(a, a.astype(np.float64)).match == "close"
    assert compared(a.astype(np.float16), a.astype(np.float16)).match == "equal"


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1600), st.booleans())
def test_equality_sees_every_place(rows: int, columns: int, place: int, turned: bool) -> None:
    a = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
    b = a.copy()
    b.flat[place % b.size] += 1
    perm = (1, 0) if turned else None
    for other, expected in ((a, True), (b, False)):
        given_as = np.ascontiguousarray(other.T) if turned else other
        assert (compared(a, given_as.copy(), perm).match == "equal") is expected


@pytest.mark.parametrize(("factor", "match"), [(1.02, "close"), (1.1, "different")])
def test_close_ends_at_five_percent(factor: float, match: str) -> None:
    a = numbers(V, H)
    assert compared(a, a * np.float32(factor)).match == match
