"""Layouts: there and back, simplified, and shapes that agree with what is done."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiesurgeon.graph import Variable, View, in_memory
from tiesurgeon.mapping.layout import (
    IDENTITY,
    TRANSPOSE,
    Gates,
    Layout,
    Part,
    Permute,
    Reshape,
    join,
    layout,
    of_view,
)

SHAPE = (6, 2, 10)


def _steps(shape: tuple[int, ...]) -> st.SearchStrategy[list[Permute | Reshape | Gates]]:
    """Chains of steps that fit an array of that shape and can be undone."""

    @st.composite
    def chain(draw: st.DrawFn) -> list[Permute | Reshape | Gates]:
        current, steps = shape, []
        for _ in range(draw(st.integers(0, 5))):
            step: Permute | Reshape | Gates
            kind = draw(st.sampled_from(("permute", "reshape", "gates")))
            if kind == "permute":
                step = Permute(draw(st.sampled_from(list(permutations(range(len(current)))))))
            elif kind == "reshape":
                targets = [(120,), (12, 10), (2, 60), (4, 3, 10), (2, 6, 10)]
                step = Reshape(current, draw(st.sampled_from(targets)))
            else:
                step = Gates(draw(st.sampled_from([(1, 0), (0, 1)])))
            if kind == "gates" and current[0] % 2:
                continue
            steps.append(step)
            current = step.shape(current)
        return steps

    return chain()


@given(_steps(SHAPE))
def test_there_and_back(steps: list[Permute | Reshape | Gates]) -> None:
    array = np.arange(120).reshape(SHAPE)
    chain = layout(*steps)
    there = chain.apply(array)
    assert there.shape == chain.shape(SHAPE)
    assert np.array_equal(chain.inverse().apply(there), array)
    assert chain.then(chain.inverse()) == IDENTITY


@given(_steps(SHAPE))
def test_simplifying_changes_nothing(steps: list[Permute | Reshape | Gates]) -> None:
    array = np.arange(120).reshape(SHAPE)
    expected = array
    for step in steps:
        expected = step.apply(expected)
    assert np.array_equal(layout(*steps).apply(array), expected)


def test_parts_of_a_bias_join_again() -> None:
    bias = np.arange(30).reshape(2, 15)
    gates = Gates((1, 0, 2))
    halves = [layout(Reshape((2, 15), (30,)), Part(i, 2), gates).apply(bias) for i in (0, 1)]
    assert np.array_equal(halves[1], [20, 21, 22, 23, 24, 15, 16, 17, 18, 19, *range(25, 30)])
    back = [gates.inverse().apply(half) for half in halves]
    assert np.array_equal(join(back), bias.reshape(-1))


def test_a_part_alone_has_no_inverse() -> None:
    with pytest.raises(ValueError, match=r"join\(\) all of them"):
        layout(Part(0, 2)).inverse()


def test_a_tied_dense_is_the_embedding_itself() -> None:
    table = Variable("embeddings", in_memory("embeddings", np.zeros((11, 3))))
    assert of_view(View("kernel", table, perm=(1, 0))).then(TRANSPOSE) == IDENTITY
    assert of_view(View("kernel", table)).then(TRANSPOSE).permutation == (1, 0)


@pytest.mark.parametrize(
    ("chain", "axes"),
    [
        (IDENTITY, ()),
        (TRANSPOSE, (1, 0)),
        (layout(Gates((1, 0))), None),
        (layout(Permute((1, 0)), Gates((1, 0))), None),
    ],
)
def test_permutation(chain: Layout, axes: tuple[int, ...] | None) -> None:
    assert chain.permutation == axes


def test_a_reshape_must_fit() -> None:
    with pytest.raises(ValueError, match="cannot reshape"):
        layout(Reshape((2, 3), (6,))).shape((5, 7))
