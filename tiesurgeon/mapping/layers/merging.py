"""Layers that make one tensor of several."""

from __future__ import annotations

from typing import Any, ClassVar

from tiesurgeon.graph import Layer, Value, values_in
from tiesurgeon.mapping.building import Dims
from tiesurgeon.mapping.layers.shapes import broadcast
from tiesurgeon.mapping.registry import Example, Examples, Pair, layer_pair
from tiesurgeon.mapping.site import Site
from tiesurgeon.mapping.torch_words import Name

TWO = ((7, 5), (7, 5))


class _Merge(Pair):
    """An operator or a function of two, applied from left to right."""

    layout = "any"
    examples: ClassVar[Examples] = (
        Example(TWO),
        Example((*TWO, (7, 5))),
        Example(((7, 5), (1, 5))),
        Example(((7, 5), (5,))),
    )

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        return broadcast(shapes)

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        values = same_rank(site, list(values_in(args)))
        masks = kwargs.get("mask")
        if masks and values == list(values_in(args)):  # values given a new axis lose their mask
            return self.masked(site, [site.plain(value) for value in values], masks)
        result = values[0]
        for other in values[1:]:
            result = site.call(self.torch, result, other)
        return result

    def masked(self, site: Site, values: list[Value], masks: list[Value | None]) -> Value:
        """The same where some steps are masked; only for layers that look at masks."""
        raise site.refuse("a mask")


def _masked_extreme(
    pair: Pair, site: Site, values: list[Value], masks: list[Value | None]
) -> Value:
    return site.call("parts.extreme_masked", Name(pair.torch), values, masks)


MASKED = Example(TWO, mask=True)


@layer_pair(keras="Add", torch="+")
class Add(_Merge):
    """a + b + ..."""


@layer_pair(keras="Multiply", torch="*")
class Multiply(_Merge):
    """a * b * ..."""

    examples = (*_Merge.examples, MASKED)

    def masked(self, site: Site, values: list[Value], masks: list[Value | None]) -> Value:
        return site.call("parts.multiply_masked", values, masks)


@layer_pair(keras="Subtract", torch="-")
class Subtract(_Merge):
    """a - b"""

    examples = (Example(TWO), Example(((7, 5), (1, 5))))


@layer_pair(keras="Maximum", torch="torch.maximum")
class Maximum(_Merge):
    """The larger of each pair of numbers"""

    examples = (*_Merge.examples, MASKED)
    masked = _masked_extreme


@layer_pair(keras="Minimum", torch="torch.minimum")
class Minimum(_Merge):
    """The smaller of each pair of numbers"""

    examples = (*_Merge.examples, MASKED)
    masked = _masked_extreme


@layer_pair(keras="Average", torch="/")
class Average(_Merge):
    """(a + b + ...) / n"""

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        values = same_rank(site, list(values_in(args)))
        total = values[0]
        for other in values[1:]:
            total = site.call("+", total, other)
        return site.call("/", total, len(values))


@layer_pair(keras="Concatenate", torch="torch.cat")
class Concatenate(Pair):
    """The tensors joined along one axis"""

    options = frozenset(("axis",))
    layout = "any"
    examples = (
        Example(((7, 5), (7, 3))),
        Example(((7, 5), (11, 5)), {"axis": 1}),
        Example(((7, 5, 2), (7, 5, 3)), {"axis": -1}),
    )

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        axis = layer.config.get("axis", -1) % len(shapes[0])
        sizes = [shape[axis] for shape in shapes]
        size = None if None in sizes else sum(size for size in sizes if size)
        return (*shapes[0][:axis], size, *shapes[0][axis + 1 :])

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        values = list(values_in(args))
        fact = site.fact(values[0])
        axis = site.option("axis", -1)
        if fact.channels_first:
            axis %= fact.rank
            axis = axis if axis == 0 else 1 if axis == fact.rank - 1 else axis + 1
        return site.call("torch.cat", values, dim=axis)


@layer_pair(keras="Dot", torch="torch.einsum")
class Dot(Pair):
    """The sum of products over one axis of each, optionally of unit vectors"""

    options = frozenset(("axes", "normalize"))
    examples = (
        Example(((5,), (5,)), {"axes": 1}),
        Example(((5,), (5,)), {"axes": -1, "normalize": True}),
        Example(((7, 5), (11, 5)), {"axes": 2}),
        Example(((7, 5), (7, 3)), {"axes": 1}),
        Example(((7, 5), (5, 3)), {"axes": [2, 1]}),
        Example(((7, 5), (5,)), {"axes": [2, 1]}),
    )

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        first, second = _axes(layer, *shapes)
        kept = [size for axis, size in enumerate(shapes[0]) if axis != first]
        kept += [size for axis, size in enumerate(shapes[1]) if axis not in (0, second)]
        return tuple(kept) if len(kept) > 1 else (*kept, 1)

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        left, right = values_in(args)
        shapes = site.fact(left).shape, site.fact(right).shape
        axes = _axes(site.layer, *shapes)
        if site.option("normalize"):
            left, right = (
                site.call("F.normalize", value, dim=axis)
                for value, axis in zip((left, right), axes, strict=True)
            )
        if len(shapes[0]) == len(shapes[1]) == 2:
            return site.call(".sum", site.call("*", left, right), dim=-1, keepdim=True)
        if (len(shapes[0]), len(shapes[1])) == (3, 3):
            left = left if axes[0] == 2 else site.call(".transpose", left, 1, 2)
            right = right if axes[1] == 1 else site.call(".transpose", right, 1, 2)
            return site.call("@", left, right)
        return site.call(
            "torch.einsum", _equation(len(shapes[0]), len(shapes[1]), axes), left, right
        )


def same_rank(site: Site, values: list[Value]) -> list[Value]:
    """Keras pads the shapes of lower rank after the batch, PyTorch before it."""
    rank = max(site.fact(value).rank for value in values)
    result = []
    for value in values:
        while site.fact(value).rank < rank:
            shape = site.fact(value).shape
            value = site.call(".unsqueeze", value, 1, shape=(shape[0], 1, *shape[1:]))
        result.append(value)
    return result


def _axes(layer: Layer, *shapes: Dims) -> tuple[int, int]:
    axes = layer.config["axes"]
    first, second = (axes, axes) if isinstance(axes, int) else axes
    return first % len(shapes[0]), second % len(shapes[1])


def _equation(left: int, right: int, axes: tuple[int, int]) -> str:
    """`bij,bj->bi`: b the batch, the axes of either one in turn."""
    letters = iter("ijklmnop")
    summed = "s"
    first = ["b", *(next(letters) for _ in range(left - 1))]
    second = ["b", *(next(letters) for _ in range(right - 1))]
    first[axes[0]] = second[axes[1]] = summed
    kept = [letter for letter in (*first, *second[1:]) if letter != summed]
    return f"{''.join(first)},{''.join(second)}->{''.join(kept)}"
