"""Inputs of two models are matched by name or by what fits, and made as both want them."""

import numpy as np
import pytest

from tiesurgeon.errors import ShapeMismatch, UnsupportedFormat
from tiesurgeon.examples import joined, made, match, routed
from tiesurgeon.running import Wanted

IDS = Wanted("ids", (None, None), "int64", below=11)


def test_names_that_agree_decide() -> None:
    own = [Wanted("a", (2, 3), "float32"), Wanted("b", (2, 3), "float32")]
    assert match(own, own[::-1]) == {"a": "a", "b": "b"}


def test_else_place_decides() -> None:
    own = [Wanted("a", (2, 3), "float32"), Wanted("b", (2, 3), "float32")]
    offered = [Wanted("x", (2, 3), "float32"), Wanted("y", (2, 3), "float32")]
    assert match(own, offered) == {"a": "x", "b": "y"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Wanted("a", (None, 3), "float32"), Wanted("b", (None, 5), "float32")),
        (Wanted("a", (None, 3), "float32"), Wanted("b", (None, 3, 1), "float32")),
        (Wanted("a", (None, 3), "float32"), Wanted("b", (None, 3), "int32")),
    ],
)
def test_what_does_not_fit_is_passed_over(one: Wanted, other: Wanted) -> None:
    names = {"a": "x", "b": "y"}
    offered = [Wanted(names[w.name], w.shape, w.dtype) for w in (other, one)]
    assert match([one, other], offered) == names


def test_ids_may_be_floats() -> None:
    assert match([IDS], [Wanted("x", (2, 7), "float32")]) == {"ids": "x"}


def test_what_fits_nothing_is_refused() -> None:
    with pytest.raises(ShapeMismatch, match="which inputs belong together; give --inputs"):
        joined([IDS], [Wanted("x", (2, 7, 3), "float32")])
    with pytest.raises(ShapeMismatch, match="which inputs belong together"):
        joined([IDS], [Wanted("x", (2, 7)), Wanted("y", (2, 7))])


def test_sizes_and_bounds_are_the_narrower_of_both() -> None:
    other = Wanted("tokens", ("batch", 5), "int32", below=7)
    for one, two in ((IDS, other), (other, IDS)):
        [found] = joined([one], [two])
        assert (found.shape, found.below) == (("batch", 5), 7)


def test_an_input_that_one_model_does_not_need_is_made_too() -> None:
    mask = Wanted("mask", (None, None), "int64")
    assert [one.name for one in joined([IDS], [mask, IDS])] == ["mask", "ids"]


def test_ids_stay_below_the_vocabulary() -> None:
    [*tries] = made([IDS])
    assert [arrays["ids"].shape for arrays in tries[:3]] == [(2, 7), (1, 7), (2, 32)]
    assert max(int(arrays["ids"].max()) for arrays in tries) == 10
    assert min(int(arrays["ids"].min()) for arrays in tries) == 0


def test_they_are_the_same_every_time() -> None:
    first, again = (next(made([Wanted("x", (None, 3), "float32")]))["x"] for _ in range(2))
    assert first.tobytes() == again.tobytes()


def test_sizes_that_are_known_are_tried_once() -> None:
    [arrays] = made([Wanted("x", (None, None, 3), "float32", steps=13)])
    assert arrays["x"].shape == (2, 13, 3)
    [arrays] = made([Wanted("x", (5, 3), "float32")])
    assert arrays["x"].shape == (5, 3)


def test_a_named_batch_is_one_wherever_it_stands() -> None:
    state = Wanted("state", (2, "batch", 13), "float32")
    tries = made([Wanted("x", ("batch", "time"), "float32"), state])
    shapes = [(arrays["x"].shape, arrays["state"].shape) for arrays in tries]
    assert shapes[:2] == [((2, 7), (2, 2, 13)), ((1, 7), (2, 1, 13))]


def test_masks_let_all_through() -> None:
    assert next(made([Wanted("attention_mask", (2, 7), "int64")]))["attention_mask"].all()


def test_what_cannot_be_made_up_is_refused() -> None:
    with pytest.raises(UnsupportedFormat, match="strings; give --inputs"):
        next(made([Wanted("text", (None,), "string")]))
    with pytest.raises(UnsupportedFormat, match="shape of input x is not in the file"):
        next(made([Wanted("x")]))


def test_given_arrays_get_the_dtype_that_is_wanted() -> None:
    given = routed([IDS], {"x": np.array([[1.0, 2.0]])})
    assert given["ids"].dtype == np.int64
    assert given["ids"].tolist() == [[1, 2]]


@pytest.mark.parametrize(("value", "says"), [(1.5, "fractions"), (2**40, "larger")])
def test_given_arrays_lose_nothing(value: float, says: str) -> None:
    with pytest.raises(ShapeMismatch, match=says):
        routed([Wanted("ids", (None,), "int32", below=11)], {"ids": np.array([value])})


def test_given_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeMismatch, match=r"it takes ids int64 .* given is a float64 \(3,\), b"):
        routed([IDS], {"a": np.zeros(3), "b": np.zeros(5)})
