"""`keras.ops` nodes that move numbers without changing them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from tiesurgeon.graph import Layer, Value
from tiesurgeon.mapping.building import Dims
from tiesurgeon.mapping.layers.reshaping import permuted, reshaped
from tiesurgeon.mapping.registry import Pair, layer_pair
from tiesurgeon.mapping.site import Site


class Operation(Pair):
    """Its own class per node; the shape is noted by `forward` unless it stays."""

    options = frozenset(("axis", "keepdims", "newshape", "axes", "dtype", "subscripts"))


@layer_pair(keras="ops.Reshape", torch=".reshape")
class Reshape(Operation):
    """The same numbers in another shape, the batch included"""

    def shape(self, layer: Layer, *shapes: Dims) -> None:
        return None

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        return reshaped(site, args[0], tuple(site.option("newshape")))


@layer_pair(keras="ops.Transpose", torch=".permute")
class Transpose(Operation):
    """The axes in another order"""

    def shape(self, layer: Layer, *shapes: Dims) -> None:
        return None

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        rank = site.fact(args[0]).rank
        return permuted(site, args[0], site.option("axes") or range(rank)[::-1])


@layer_pair(keras="ops.ExpandDims", torch=".unsqueeze")
class ExpandDims(Operation):
    """A new axis of size 1"""

    def shape(self, layer: Layer, *shapes: Dims) -> None:
        return None

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        axis = site.option("axis")
        if not isinstance(axis, int):
            raise site.refuse(f"axis={axis!r}")
        shape = list(site.fact(args[0]).shape)
        shape.insert(axis % (len(shape) + 1), 1)
        return site.call(".unsqueeze", args[0], axis, shape=tuple(shape))


@layer_pair(keras="ops.Squeeze", torch=".squeeze")
class Squeeze(Operation):
    """Without some axes of size 1"""

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        axes = axes_of(layer, len(shapes[0]))
        chosen = layer.config.get("axis") is not None
        return tuple(s for i, s in enumerate(shapes[0]) if s != 1 or (chosen and i not in axes))

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        axis = site.option("axis")
        if axis is None:
            return site.call(".squeeze", args[0])
        return site.call(".squeeze", args[0], axis if isinstance(axis, int) else tuple(axis))


@layer_pair(keras="ops.Concatenate", torch="torch.cat")
class Concatenate(Operation):
    """The tensors joined along one axis"""

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        axis = layer.config.get("axis", 0) % len(shapes[0])
        sizes = [shape[axis] for shape in shapes]
        size = None if None in sizes else sum(size for size in sizes if size)
        return (*shapes[0][:axis], size, *shapes[0][axis + 1 :])

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        return site.call("torch.cat", list(args[0]), dim=site.option("axis", 0))


@layer_pair(keras="ops.Stack", torch="torch.stack")
class Stack(Operation):
    """The tensors side by side along a new axis"""

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        shape = list(shapes[0])
        shape.insert(layer.config.get("axis", 0) % (len(shape) + 1), len(shapes))
        return tuple(shape)

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        return site.call("torch.stack", list(args[0]), dim=site.option("axis", 0))


@layer_pair(keras="ops.Split", torch=".chunk")
class Split(Operation):
    """Equal parts, or parts between given places"""

    options = frozenset(("indices_or_sections", "axis"))

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> tuple[Value, ...]:
        value: Value = args[0]
        axis, places = site.option("axis", 0), site.option("indices_or_sections")
        shape = list(site.fact(value).shape)
        at = axis % len(shape)
        size = shape[at]
        if size is None:
            raise site.refuse("an axis of unknown size")
        step = size // places if isinstance(places, int) else 0
        bounds = list(range(0, size + 1, step)) if step else [0, *places, size]
        parts = []
        for start, stop in pairwise(bounds):
            index = (*[slice(None)] * at, slice(start, stop))
            shape[at] = stop - start
            parts.append(site.call("[]", value, index, shape=tuple(shape)))
        return tuple(parts)


@layer_pair(keras="ops.GetItem", torch="[]")
class GetItem(Operation):
    """x[key]"""

    def shape(self, layer: Layer, *shapes: Dims) -> None:
        return None

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        key = args[1] if len(args) > 1 else kwargs["key"]
        index = tuple(_subscript(part) for part in (key if isinstance(key, list) else [key]))
        if any(isinstance(part, slice) and (part.step or 1) < 0 for part in index):
            raise site.refuse("a slice that goes backwards")
        if len(index) > 1 and index[-1] is ...:
            index = index[:-1]
        shape = _indexed(site.fact(args[0]).shape, index)
        return site.call("[]", args[0], index[0] if len(index) == 1 else index, shape=shape)


@layer_pair(keras="ops.EveryStep", torch="torch.ones")
class EveryStep(Operation):
    """A mask that is true at every step; masks.py makes it, Keras has no such node"""

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        return shapes[0][:2]

    def dtype(self, layer: Layer, *dtypes: str) -> str:
        return "bool"

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        value: Value = args[0]
        if site.fact(value).rank > 2:
            index = (slice(None), slice(None), *[0] * (site.fact(value).rank - 2))
            value = site.call("[]", value, index, shape=site.fact(value).shape[:2])
        return site.call(".bool", site.call("torch.ones_like", value))


def axes_of(layer: Layer, rank: int) -> frozenset[int]:
    """The axes of a reduction, all of them where none is named."""
    axis = layer.config.get("axis")
    axes = range(rank) if axis is None else [axis] if isinstance(axis, int) else axis
    return frozenset(axis % rank for axis in axes)


def _subscript(part: Any) -> Any:
    if isinstance(part, Mapping):
        config = part.get("config") or {}
        if part.get("class_name") == "__ellipsis__":
            return ...
        return slice(config.get("start"), config.get("stop"), config.get("step"))
    return part


def _indexed(shape: Dims, index: tuple[Any, ...]) -> Dims:
    """The shape of x[index]."""
    taking = sum(part is not None and part is not ... for part in index)
    rest, result = list(shape), list[int | None]()
    for part in (*index, ...) if ... not in index else index:
        if part is None:
            result.append(1)
        elif part is ...:
            count = len(shape) - taking
            result += rest[:count]
            rest = rest[count:]
        else:
            size = rest.pop(0)
            if isinstance(part, slice):
                result.append(None if size is None else len(range(*part.indices(size))))
    return tuple(result)
