"""How an array of one framework lies in the other: small steps, each with its inverse.

A `Layout` is a chain of steps that turns a Keras array into a PyTorch one. Chains are kept
in their simplest form, so two layouts that say the same compare equal, and a transpose
followed by a transpose is the identity: that is how a tie is recognised across frameworks.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from tiesurgeon.graph import Array, Shape, View


@dataclass(frozen=True)
class Permute:
    """Reorders the axes: axis `i` of the result is axis `axes[i]` of the array."""

    axes: tuple[int, ...]

    def apply(self, array: Array) -> Array:
        return array.transpose(self.axes)

    def shape(self, shape: Shape) -> Shape:
        return tuple(shape[axis] for axis in self.axes)

    def inverse(self) -> Permute:
        return Permute(tuple(int(axis) for axis in np.argsort(self.axes)))


@dataclass(frozen=True)
class Reshape:
    """Reads the same numbers, in C order, as an array of shape `target`."""

    source: Shape
    target: Shape

    def apply(self, array: Array) -> Array:
        return array.reshape(self.target)

    def shape(self, shape: Shape) -> Shape:
        if prod(shape) != prod(self.target):
            raise ValueError(f"cannot reshape {shape} into {self.target}")
        return self.target

    def inverse(self) -> Reshape:
        return Reshape(self.target, self.source)


@dataclass(frozen=True)
class Gates:
    """Reorders the equal blocks of axis 0: block `i` of the result is block `order[i]`."""

    order: tuple[int, ...]

    def apply(self, array: Array) -> Array:
        blocks = array.reshape(len(self.order), -1, *array.shape[1:])
        return blocks[list(self.order)].reshape(array.shape)

    def shape(self, shape: Shape) -> Shape:
        return shape

    def inverse(self) -> Gates:
        return Gates(tuple(int(block) for block in np.argsort(self.order)))


@dataclass(frozen=True)
class Part:
    """Block `index` of the `count` equal blocks of axis 0. Its inverse is `join` of all."""

    index: int
    count: int

    def apply(self, array: Array) -> Array:
        size = array.shape[0] // self.count
        return array[self.index * size : (self.index + 1) * size]

    def shape(self, shape: Shape) -> Shape:
        return (shape[0] // self.count, *shape[1:])

    def inverse(self) -> Permute:
        raise ValueError("one part of an array cannot give the whole: join() all of them")


Step = Permute | Reshape | Gates | Part


def join(parts: list[Array]) -> Array:
    """The array whose `Part`s these are, in order."""
    return np.concatenate(parts, axis=0)


@dataclass(frozen=True)
class Layout:
    """A chain of steps in its simplest form; make it with `layout()`."""

    steps: tuple[Step, ...] = ()

    def apply(self, array: Array) -> Array:
        """The array in the new layout; a view of the old one where numpy can."""
        for step in self.steps:
            array = step.apply(array)
        return array

    def shape(self, shape: Shape) -> Shape:
        """The shape that `apply` gives to an array of that shape."""
        for step in self.steps:
            shape = step.shape(shape)
        return shape

    def then(self, other: Layout) -> Layout:
        """This layout, then the other one."""
        return layout(*self.steps, *other.steps)

    def inverse(self) -> Layout:
        """The way back; ValueError where numbers were left out."""
        return layout(*(step.inverse() for step in reversed(self.steps)))

    @property
    def permutation(self) -> tuple[int, ...] | None:
        """The axes where this only permutes, () where it changes nothing, else None."""
        if not self.steps:
            return ()
        step = self.steps[0]
        return step.axes if len(self.steps) == 1 and isinstance(step, Permute) else None

    @property
    def parts(self) -> tuple[Part, ...]:
        """The steps that leave numbers out."""
        return tuple(step for step in self.steps if isinstance(step, Part))


def _merge(first: Step, second: Step) -> Step | None:
    if isinstance(first, Permute) and isinstance(second, Permute):
        return Permute(tuple(first.axes[axis] for axis in second.axes))
    if isinstance(first, Reshape) and isinstance(second, Reshape):
        return Reshape(first.source, second.target)
    if not isinstance(first, Gates) or not isinstance(second, Gates):
        return None
    if len(first.order) != len(second.order):
        return None
    return Gates(tuple(first.order[block] for block in second.order))


def _is_identity(step: Step) -> bool:
    if isinstance(step, Permute):
        return step.axes == tuple(range(len(step.axes)))
    if isinstance(step, Reshape):
        return step.source == step.target
    if isinstance(step, Gates):
        return step.order == tuple(range(len(step.order)))
    return step.count == 1


def layout(*steps: Step) -> Layout:
    """The chain of those steps, simplified."""
    chain: list[Step] = []
    for step in steps:
        merged = _merge(chain[-1], step) if chain else None
        if merged is not None:
            chain[-1] = merged
        else:
            chain.append(step)
        if _is_identity(chain[-1]):
            chain.pop()
    return Layout(tuple(chain))


def permute(*axes: int) -> Layout:
    """The layout that only permutes."""
    return layout(Permute(axes))


IDENTITY = Layout()
TRANSPOSE = permute(1, 0)


def of_view(view: View) -> Layout:
    """From the array as stored to the array as that layer sees it."""
    steps: list[Step] = []
    shape = view.variable.shape
    if view.perm is not None:
        steps.append(Permute(view.perm))
        shape = steps[-1].shape(shape)
    if view.reshape is not None:
        steps.append(Reshape(shape, view.reshape))
    return layout(*steps)
