"""RNN around a cell, or around several cells one above the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tiesurgeon.graph import Layer, Value
from tiesurgeon.mapping.layers.recurrent import Recurrent, sequence_arguments
from tiesurgeon.mapping.registry import Example, Pair, layer_pair
from tiesurgeon.mapping.site import Site

LAYERS = {"LSTMCell": "LSTM", "GRUCell": "GRU", "SimpleRNNCell": "SimpleRNN"}
CELL = {"class_name": "LSTMCell", "config": {"units": 3}}
STACK = {
    "class_name": "StackedRNNCells",
    "config": {"cells": [CELL, {"class_name": "GRUCell", "config": {"units": 5}}]},
}


@layer_pair(keras="RNN", torch="nn.LSTM")
class RNN(Pair):
    """An RNN of a cell is the layer of that cell; of stacked cells, the layers in turn."""

    options = frozenset(
        """
        cell return_sequences return_state go_backwards stateful unroll zero_output_for_mask
        """.split()
    )
    examples = (
        Example(((7, 5),), {"cell": CELL}, mask=True),
        Example(((7, 5),), {"cell": CELL, "return_sequences": True, "return_state": True}),
        Example(((7, 5),), {"cell": STACK, "return_sequences": True}),
        Example(((7, 5),), {"cell": STACK, "return_state": True, "go_backwards": True}),
    )

    def shape(self, layer: Layer, *shapes: Any) -> None:
        return None

    def dtype(self, layer: Layer, *dtypes: Any) -> None:
        return None

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value | tuple[Value, ...]:
        value, initial, mask = sequence_arguments(args, kwargs)
        cells = _cells(site.layer)
        own = {key: item for key, item in site.layer.config.items() if key != "cell"}
        if len(cells) > 1 and mask is not None:
            raise site.refuse("a mask over stacked cells")
        states: list[Value] = []
        for number, cell in enumerate(cells):
            is_last = number == len(cells) - 1
            layer = self._as_layer(site, cell, own, is_first=number == 0, is_last=is_last)
            inner = site.inside(layer, f"_{number}" if len(cells) > 1 else "")
            assert isinstance(inner.pair, Recurrent)
            given: dict[str, Any] = {"mask": mask}
            if initial is not None:
                count = inner.pair.state_count
                given["initial_state"], initial = initial[:count], initial[count:]
            result = inner.pair.forward(inner, value, **given)
            value, *rest = (result,) if isinstance(result, Value) else result
            states.extend(rest)
        return (value, *states) if states else value

    def _as_layer(
        self, site: Site, cell: Layer, own: dict[str, Any], *, is_first: bool, is_last: bool
    ) -> Layer:
        if cell.op not in LAYERS:
            raise site.refuse(f"the cell {cell.op}")
        config = {**cell.config, **own}
        if not is_last:
            config["return_sequences"] = True
        if not is_first:
            config["go_backwards"] = False
        return replace(cell, name=site.layer.name, op=LAYERS[cell.op], config=config)


def _cells(layer: Layer) -> tuple[Layer, ...]:
    cell = layer.inner[0]
    return cell.inner if cell.op == "StackedRNNCells" else (cell,)
