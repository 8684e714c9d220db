"""How alike matrices are, and which of many are the same."""

import mmap
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.handmade import H, Model, V, language_model, numbers, view
from tiesurgeon import find
from tiesurgeon.find.blocks import blocks
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
        np.linalg.norm(x - y) / np.linalg.norm(x), rel=1e-7
    )
    assert found.cosine == pytest.approx(cosines.mean(), abs=1e-8)


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


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float64"]
)
@pytest.mark.parametrize("turned", [False, True])
def test_every_floating_dtype_is_measured(dtype: str, turned: bool) -> None:
    a, b = (numbers(503, 53).astype(_named(dtype)) for _ in range(2))
    x, y = a.astype(float), b.astype(float)
    found = compared(a, np.ascontiguousarray(b.T), (1, 0)) if turned else compared(a, b)
    expected = np.linalg.norm(x - y) / np.linalg.norm(x)
    assert found.relative_difference == pytest.approx(expected, rel=1e-6)


def _named(dtype: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, dtype, dtype))


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_numbers_whose_squares_single_precision_cannot_hold_are_measured(scale: float) -> None:
    a, b = numbers(V, H), numbers(V, H)
    plain = compared(a, b)
    found = compared(a * np.float32(scale), b * np.float32(scale))
    assert found.relative_difference == pytest.approx(plain.relative_difference, rel=1e-6)
    assert found.cosine == pytest.approx(plain.cosine, abs=1e-6)


def test_a_difference_that_single_precision_would_lose_is_measured() -> None:
    a = np.full((V, H), 1e-20, np.float32)
    b = np.nextafter(a, np.float32(1))
    found = compared(a, b).relative_difference
    assert found == pytest.approx(float(b[0, 0] - a[0, 0]) / 1e-20, rel=1e-5)
    assert found


def test_wide_and_high_matrices_are_measured_as_one() -> None:
    for shape in ((1, 150_001), (150_001, 1), (3, 70_001), (70_001, 3)):
        a, b = numbers(*shape), numbers(*shape)
        expected = np.linalg.norm(a.astype(float) - b) / np.linalg.norm(a.astype(float))
        for other, perm in ((b, None), (np.ascontiguousarray(b.T), (1, 0))):
            found = compared(a, other, perm).relative_difference
            assert found == pytest.approx(expected, rel=1e-6)


# --- block by block ---------------------------------------------------------------------------


@given(st.integers(0, 5000), st.integers(0, 300), st.booleans(), st.booleans(), st.booleans())
def test_blocks_cover_each_number_once(
    rows: int, columns: int, high: bool, a_turned: bool, b_turned: bool
) -> None:
    shape = (rows, columns) if high else (columns, rows)
    a, b = (_lying(shape, turned=turned) for turned in (a_turned, b_turned))
    seen = np.zeros(shape, np.int8)
    for block in blocks(a, b):
        seen[block] += 1
    assert (seen == 1).all()


def _lying(shape: tuple[int, int], *, turned: bool) -> Array:
    return np.empty(shape[::-1], np.int8).T if turned else np.empty(shape, np.int8)


def test_blocks_are_small_whatever_the_shape() -> None:
    for shape in ((10_000_000, 2), (2, 10_000_000), (1, 10_000_000), (40_000, 50_000)):
        a = np.broadcast_to(np.float32(0), shape)
        rows, columns = next(iter(blocks(a, a)))
        assert (rows.stop - rows.start) * (columns.stop - columns.start) <= 1 << 17


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="the system maps otherwise")
@pytest.mark.parametrize("turned", [False, True])
def test_mapped_matrices_stream_through_little_memory(tmp_path: Path, turned: bool) -> None:
    """Both are of 200 MB; the peak is that of a process that does nothing else."""
    code = (
        "import resource, sys, numpy as np\n"
        "from tiesurgeon.find.values import bits_equal\n"
        "path, turned = sys.argv[1], sys.argv[2] == 'True'\n"
        "a = np.memmap(path, 'f4', 'r', shape=(50_000, 1000))\n"
        "b = np.memmap(path, 'f4', 'r', shape=(1000, 50_000)).T if turned else a\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert bits_equal(a, b)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    path = tmp_path / "zeros"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    command = [sys.executable, "-c", code, str(path), str(turned)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout) < 100_000  # KB
