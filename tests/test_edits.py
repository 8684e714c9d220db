"""Edits of graphs, in numpy: who sees which variable, and through which transpose."""

from dataclasses import replace

import numpy as np
import pytest

from tiesurgeon import edits
from tiesurgeon.graph import Array, Graph, Layer, Variable, View, in_memory, map_views

TABLE = np.arange(33, dtype="float32").reshape(11, 3)
KERNEL = -np.arange(33, dtype="float32").reshape(3, 11)


def variable(name: str, array: Array) -> Variable:
    return Variable(name, in_memory(name, array))


def graph(*views: tuple[str, View]) -> Graph:
    return Graph("model", "Functional", tuple(Layer(name, "Op", views=(v,)) for name, v in views))


def test_a_tie_makes_both_views_lead_to_one_variable() -> None:
    table, kernel = variable("table", TABLE), variable("kernel", KERNEL)
    tied = edits.tie(
        graph(("e", View("embeddings", table)), ("d", View("kernel", kernel))),
        table,
        kernel,
        (1, 0),
    )
    one, other = (tied.layer(name).views[0] for name in "ed")
    assert one.variable is other.variable
    assert other.shape == (3, 11)
    np.testing.assert_array_equal(other.load(), TABLE.T)
    assert tied.variables() == (table,)


def test_every_other_use_of_the_target_follows() -> None:
    table, kernel = variable("table", TABLE), variable("kernel", KERNEL)
    before = graph(
        ("e", View("embeddings", table)),
        ("d", View("kernel", kernel)),
        ("back", View("embeddings", kernel, perm=(1, 0))),
    )
    tied = edits.tie(before, table, kernel, (1, 0))
    np.testing.assert_array_equal(tied.layer("back").views[0].load(), TABLE)


def test_a_new_value_is_seen_from_everywhere() -> None:
    table, kernel = variable("table", TABLE), variable("kernel", KERNEL)
    tied = edits.tie(
        graph(("e", View("embeddings", table)), ("d", View("kernel", kernel))),
        table,
        kernel,
        (1, 0),
        TABLE + 7,
    )
    np.testing.assert_array_equal(tied.layer("e").views[0].load(), TABLE + 7)
    np.testing.assert_array_equal(tied.layer("d").views[0].load(), TABLE.T + 7)
    with pytest.raises(AssertionError, match=r"\(3, 11\)"):
        edits.with_value(table, KERNEL)


def test_untie_gives_each_layer_its_own_of_equal_value() -> None:
    table = variable("table", TABLE)
    tied = graph(
        ("e", View("embeddings", table)),
        ("d", View("kernel", table, perm=(1, 0))),
        ("b", View("bias", table, reshape=(33,))),
    )
    apart = edits.untie(tied)
    assert len(set(apart.variables())) == 3
    for name in "edb":
        one, other = tied.layer(name).views[0], apart.layer(name).views[0]
        np.testing.assert_array_equal(one.load(), other.load())
    assert apart.layer("e").views[0].variable is table


def test_untie_can_leave_other_views_alone() -> None:
    table, other = variable("table", TABLE), variable("other", KERNEL)
    tied = graph(
        *((name, View("w", v)) for name, v in zip("abcd", (table, other) * 2, strict=True))
    )
    apart = edits.untie(tied, [tied.layer("a").views[0]])
    assert len(set(apart.variables())) == 3
    assert apart.layer("b").views[0].variable is apart.layer("d").views[0].variable
    assert apart.layer("c").views[0].variable is table


@pytest.mark.parametrize("first", [None, (0, 2, 1), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("second", [None, (1, 0, 2), (2, 1, 0), (2, 0, 1)])
def test_compose_is_one_transpose_after_the_other(
    first: tuple[int, ...] | None, second: tuple[int, ...] | None
) -> None:
    array = np.arange(30).reshape(2, 3, 5)
    both = edits.compose(first, second)
    expected = array if first is None else array.transpose(first)
    expected = expected if second is None else expected.transpose(second)
    np.testing.assert_array_equal(array if both is None else array.transpose(both), expected)
    assert edits.compose(first, edits.inverse(first)) is None


def test_views_inside_wrappers_and_nested_models_are_changed() -> None:
    table = variable("table", TABLE)
    inner = Layer("inner", "Dense", views=(View("kernel", table),))
    body = graph(("deep", View("kernel", table)))
    outer = Graph(
        "m", "Functional", (Layer("wrap", "TD", inner=(inner,)), Layer("nest", "M", body=body))
    )
    new = variable("new", TABLE)
    changed = map_views(outer, lambda view: replace(view, variable=new))
    assert changed.variables() == (new,)
