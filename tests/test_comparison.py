"""Two arrays are as far apart as their farthest numbers, and that is where it says."""

import math

import ml_dtypes
import numpy as np
import pytest

from tiesurgeon import comparison
from tiesurgeon.comparison import compare, largest_difference
from tiesurgeon.errors import ShapeMismatch

NAN, INF = math.nan, math.inf


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype("f4")


def test_it_says_where_and_by_how_much() -> None:
    one = numbers(2, 5, 11)
    other = one.copy()
    other[1, 3, 7] += 0.5
    found = compare("y", one, other)
    assert found.index == (1, 3, 7)
    assert (found.a, found.b) == (one[1, 3, 7], other[1, 3, 7])
    assert found.max_abs_diff == pytest.approx(0.5)
    assert not found.same_bits


def test_the_place_is_right_beyond_the_first_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_BLOCK", 22)  # two rows of 11
    one = numbers(7, 11)
    other = one.copy()
    other[5, 3] -= 2
    assert compare("y", one, other).index == (5, 3)


def test_a_transposed_array_is_compared_as_it_is_seen() -> None:
    one = numbers(11, 3)
    found = compare("w", one.T, np.ascontiguousarray(one.T))
    assert found.same_bits


def test_the_relative_difference_is_of_the_larger_number() -> None:
    found = compare("y", np.array([1000.0, 1.0]), np.array([1001.0, 2.0]))
    assert (found.max_abs_diff, found.index) == (1.0, (0,))
    assert found.max_rel_diff == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (NAN, NAN, 0),
        (INF, INF, 0),
        (NAN, 1.0, INF),
        (1.0, NAN, INF),
        (INF, -INF, INF),
        (0.0, INF, INF),
    ],
)
def test_what_is_no_number(a: float, b: float, expected: float) -> None:
    found = compare("y", np.array([0.5, a]), np.array([0.5, b]))
    assert found.max_abs_diff == expected
    assert found.max_rel_diff == expected
    assert found.unusual == (0 if math.isfinite(a) else 1)
    assert found.scale == (max(0.5, abs(a)) if math.isfinite(a) else 0.5)
    assert found.index == ((1,) if expected else (0,))


@pytest.mark.parametrize("dtype", ["?", "u1", "i8", "f2", ml_dtypes.bfloat16, "c8"])
def test_of_every_dtype(dtype: str) -> None:
    one = np.array([[0, 1], [1, 1]]).astype(dtype)
    other = np.array([[0, 1], [0, 1]]).astype(dtype)
    found = compare("y", one, other)
    assert (found.max_abs_diff, found.index) == (1, (1, 0))


def test_other_bits_of_equal_numbers_are_told() -> None:
    found = compare("y", np.array([0.0, 1.0]), np.array([-0.0, 1.0]))
    assert found.max_abs_diff == 0
    assert not found.same_bits


@pytest.mark.parametrize("shape", [(), (0, 3)])
def test_shapes_without_rows(shape: tuple[int, ...]) -> None:
    found = compare("y", np.ones(shape), np.ones(shape))
    assert (found.max_abs_diff, found.shape) == (0, shape)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ShapeMismatch, match=r"y is \(3, 5\) in the first and \(5, 3\)"):
        compare("y", numbers(3, 5), numbers(5, 3))


def test_the_largest_of_several() -> None:
    one = [numbers(3), numbers(5)]
    assert largest_difference(one, [one[0] + 1, one[1]]) == pytest.approx(1)
    assert largest_difference(one, one[:1]) == INF
    assert largest_difference(one, one[::-1]) == INF
