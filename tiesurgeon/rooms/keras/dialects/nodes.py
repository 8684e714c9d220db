"""How layers are called: Keras 1 and 2 wrote `[layer, node, tensor, kwargs]`, Keras 3 args/kwargs.

Formats from tf_keras' `Node.serialize` and `reconstruct_from_config`, and keras 3's
`serialize_node`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from reprlib import repr as brief
from typing import Any

from tiesurgeon.rooms.keras.dialects.catalogue import words

_CONSTANT = "_CONSTANT_VALUE"
_RECURRENT = words("SimpleRNN LSTM GRU RNN Bidirectional ConvLSTM1D ConvLSTM2D ConvLSTM3D")


@dataclass
class Call:
    """One call of a layer: positional and keyword arguments, tensors already in Keras 3's form."""

    args: list[Any]
    kwargs: dict[str, Any]

    def to_node(self) -> dict[str, Any]:
        """The inbound node that Keras 3 stores."""
        return {"args": self.args, "kwargs": self.kwargs}


@dataclass
class NodeReader:
    """Reads the old nodes of one Functional model.

    `first_node` says from which number the nodes of a nested model are counted; `inputs` holds
    shape and dtype of what input layers give.
    """

    names: frozenset[str]
    first_node: dict[str, int]
    inputs: dict[str, tuple[list[Any], Any]] = field(default_factory=dict)

    def read(self, node: Any, *, keep_structure: bool = False) -> Call:
        """Reads one inbound node; a list of one tensor is that tensor unless `keep_structure`."""
        kwargs: dict[str, Any] = {}
        first = self._first_argument(node, kwargs)
        if not keep_structure and isinstance(first, list) and len(first) == 1:
            first = first[0]
        return Call([first], {key: self._argument(value) for key, value in kwargs.items()})

    def reference(self, name: str, node: int, tensor: int) -> dict[str, Any]:
        """A tensor as Keras 3 names it; dtype is None and shape [] where the old file says none."""
        shape, dtype = self.inputs.get(name, ([], None))
        number = 0 if name in self.inputs else max(node - self.first_node.get(name, 0), 0)
        return {
            "class_name": "__keras_tensor__",
            "config": {"shape": shape, "dtype": dtype, "keras_history": [name, number, tensor]},
        }

    def _first_argument(self, data: Any, kwargs: dict[str, Any]) -> Any:
        if self._is_leaf(data):
            if len(data) == 4 and isinstance(data[3], dict):
                kwargs.update(data[3])
            if data[0] == _CONSTANT:
                return constant(data[2])
            return self.reference(*data[:3])
        if isinstance(data, list):
            return [self._first_argument(item, kwargs) for item in data]
        if isinstance(data, dict):
            return {key: self._first_argument(item, kwargs) for key, item in data.items()}
        raise ValueError(f"an inbound node holds {brief(data)}, expected [layer, node, tensor]")

    def _argument(self, value: Any) -> Any:
        if self._is_leaf(value):
            return constant(value[2]) if value[0] == _CONSTANT else self.reference(*value[:3])
        if isinstance(value, list):
            return [self._argument(item) for item in value]
        if isinstance(value, dict):
            return {key: self._argument(item) for key, item in value.items()}
        return value

    def _is_leaf(self, data: Any) -> bool:
        return is_reference(data, self.names) or (
            isinstance(data, list) and len(data) in (3, 4) and data[0] == _CONSTANT
        )


def is_reference(data: Any, names: frozenset[str] | None = None) -> bool:
    """True for `[layer, node, tensor]` or `[layer, node, tensor, kwargs]`."""
    return (
        isinstance(data, list)
        and len(data) in (3, 4)
        and isinstance(data[0], str)
        and (names is None or data[0] in names)
        and _is_index(data[1])
        and _is_index(data[2])
    )


def references(data: Any, names: frozenset[str]) -> Iterator[tuple[str, int]]:
    """Yields (layer, node) for every tensor in `data`, old nodes of any depth."""
    if is_reference(data, names):
        yield data[0], data[1]
        data = data[3:]
    if isinstance(data, list):
        for item in data:
            yield from references(item, names)
    elif isinstance(data, dict):
        for item in data.values():
            yield from references(item, names)


def constant(value: Any) -> Any:
    """A constant argument; nested numbers become a numpy array, as Keras 3 stores one."""
    leaves = list(_leaves(value)) if isinstance(value, list) else []
    if not leaves or not all(isinstance(leaf, bool | int | float) for leaf in leaves):
        return value
    if all(isinstance(leaf, bool) for leaf in leaves):
        dtype = "bool"
    else:
        dtype = "float32" if any(isinstance(leaf, float) for leaf in leaves) else "int32"
    return {"class_name": "__numpy__", "config": {"value": value, "dtype": dtype}}


def upgrade_call(class_name: str, config: dict[str, Any], call: Call) -> Call:
    """Gives a layer's arguments their places in Keras 3's signature."""
    if class_name in _RECURRENT:
        return _recurrent_call(config, call)
    if class_name == "MultiHeadAttention":
        return _attention_call(call)
    return call


def _recurrent_call(config: dict[str, Any], call: Call) -> Call:
    # Keras 2 called the layer on [sequence, *states, *constants].
    first, kwargs = call.args[0], dict(call.kwargs)
    if kwargs.get("constants") in (None, []):
        kwargs.pop("constants", None)
    if not isinstance(first, list) or not first:
        return Call(call.args, kwargs)
    constants = config.get("_num_constants") or config.get("num_constants") or 0
    states = first[1 : len(first) - constants]
    if states:
        kwargs["initial_state"] = states
    if constants:
        kwargs["constants"] = first[len(first) - constants :]
    return Call([first[0]], kwargs)


def _attention_call(call: Call) -> Call:
    # By position, as Keras 3 itself stores them.
    kwargs = dict(call.kwargs)
    args = list(call.args)
    for name in ("value", "key"):
        if kwargs.get(name) is None:
            kwargs.pop(name, None)
            break
        args.append(kwargs.pop(name))
    return Call(args, kwargs)


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _leaves(value: Any) -> Iterator[Any]:
    for item in value:
        if isinstance(item, list):
            yield from _leaves(item)
        else:
            yield item
