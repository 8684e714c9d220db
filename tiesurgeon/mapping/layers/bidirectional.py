"""Bidirectional, and RNN around a cell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from tiesurgeon.graph import Layer, Value
from tiesurgeon.mapping.building import Fact
from tiesurgeon.mapping.layers.recurrent import Recurrent, sequence_arguments, with_dropout
from tiesurgeon.mapping.registry import (
    Constant,
    Example,
    Pair,
    Weight,
    layer_pair,
)
from tiesurgeon.mapping.site import Site

LSTM_OF_3 = {"class_name": "LSTM", "config": {"units": 3, "return_sequences": True}}
BACKWARD_GRU = {
    "class_name": "GRU",
    "config": {"units": 3, "return_sequences": True, "go_backwards": True},
}


@layer_pair(keras="Bidirectional", torch="nn.LSTM")
class Bidirectional(Pair):
    """nn.LSTM(bidirectional=True) where both directions are alike, else two modules.

    Keras sets the output of masked steps to zero here.
    """

    options = frozenset(("layer", "backward_layer", "merge_mode"))
    examples = (
        Example(((7, 5),), {"layer": LSTM_OF_3, "backward_layer": BACKWARD_GRU}, mask=True),
        *(
            Example(((7, 5),), {"layer": LSTM_OF_3, "merge_mode": mode}, mask=mask)
            for mode in ("concat", "sum", "ave", "mul", None)
            for mask in (False, True)
        ),
        *(
            Example(((7, 5),), {"layer": {"class_name": op, "config": config}}, mask=mask)
            for op in ("LSTM", "GRU", "SimpleRNN")
            for config in (
                {"units": 3},
                {"units": 3, "activation": "relu", "return_sequences": True},
                {"units": 3, "return_state": True},
                {"units": 3, "dropout": 0.2, "return_sequences": True, "return_state": True},
            )
            for mask in (False, True)
        ),
    )

    def shape(self, layer: Layer, *shapes: Any) -> None:
        return None

    def dtype(self, layer: Layer, *dtypes: Any) -> None:
        return None

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value | tuple[Value, ...]:
        value, initial, mask = sequence_arguments(args, kwargs)
        ahead, back = site.layer.inner[:2]
        if initial is None and _alike(site, ahead, back):
            outputs, states = self._fused(site, value, mask)
        else:
            outputs, states = self._apart(site, value, initial, mask)
        merged = outputs if isinstance(outputs, tuple) else (outputs,)
        if not ahead.config.get("return_state"):
            return merged if len(merged) > 1 else merged[0]
        return (*merged, *states)

    # Both directions in one module.

    def _fused(
        self, site: Site, value: Value, mask: Value | None
    ) -> tuple[Value | tuple[Value, ...], list[Value]]:
        ahead, back = site.layer.inner[:2]
        inner = site.inside(ahead)
        pair = inner.pair
        assert isinstance(pair, Recurrent)
        config = {**pair.arguments(ahead), "batch_first": True, "bidirectional": True}
        name = site.body.attribute(site.attribute, "")
        views = [
            *site.views(name, ahead, pair.weights_of(ahead)),
            *site.views(name, back, _reverse(pair.weights_of(back))),
        ]
        value = with_dropout(inner, value)
        options: dict[str, Any] = {} if mask is None else {"mask": mask}
        output = site.module(value, op=pair.torch, config=config, made=views, **options)
        fact, units = site.fact(value), ahead.config["units"]
        site.note(output, (*fact.shape[:2], 2 * units), "float32")
        for index in range(pair.state_count):
            site.body.output(output, 1 + index, Fact((2, fact.shape[0], units), "float32"))
        states = [
            (pair.last(site, output, index, 0), pair.last(site, output, index, 1))
            for index in range(pair.state_count)
        ]
        by_direction = [first for first, _ in states] + [second for _, second in states]
        if not ahead.config.get("return_sequences"):
            return self._merge(site, *states[0]), by_direction
        if mask is not None:
            steps = site.call(".unsqueeze", mask, -1, hint="mask")
            output = site.call("*", output, steps)
        if site.option("merge_mode", "concat") == "concat":
            return output, by_direction
        half = (*fact.shape[:2], units)
        halves = [
            site.call("[]", output, (..., part), shape=half)
            for part in (slice(units), slice(units, None))
        ]
        return self._merge(site, *halves), by_direction

    # A module for each direction.

    def _apart(
        self, site: Site, value: Value, initial: list[Value] | None, mask: Value | None
    ) -> tuple[Value | tuple[Value, ...], list[Value]]:
        outputs, states = [], []
        for number, (layer, suffix) in enumerate(
            zip(site.layer.inner[:2], ("_forward", "_backward"), strict=True)
        ):
            sequences = bool(layer.config.get("return_sequences"))
            config = {**layer.config, "zero_output_for_mask": sequences}
            inner = site.inside(replace(layer, config=config, name=site.layer.name), suffix)
            half = len(initial or ()) // 2
            given = {
                "initial_state": initial[number * half : (number + 1) * half] if initial else None,
                "mask": mask,
            }
            result = inner.pair.forward(inner, value, **given)
            output, *rest = (result,) if isinstance(result, Value) else result
            outputs.append(output if number == 0 or not sequences else _flipped(site, output))
            states.extend(rest)
        return self._merge(site, *outputs), states

    def _merge(self, site: Site, ahead: Value, back: Value) -> Value | tuple[Value, ...]:
        mode = site.option("merge_mode", "concat")
        if mode is None:
            return ahead, back
        if mode == "concat":
            shape = site.fact(ahead).shape
            width = (shape[-1] or 0) + (site.fact(back).shape[-1] or 0)
            return site.call("torch.cat", [ahead, back], dim=-1, shape=(*shape[:-1], width))
        result = site.call("*" if mode == "mul" else "+", ahead, back)
        return site.call("/", result, 2) if mode == "ave" else result


def _reverse(weights: Iterable[Weight]) -> Iterable[Weight]:
    for pair in weights:
        torch = f"{pair.torch}_reverse"
        if isinstance(pair, Constant):
            yield Constant(torch, like=f"{pair.like}_reverse")
        else:
            yield replace(pair, torch=torch)


def _alike(site: Site, ahead: Layer, back: Layer) -> bool:
    """Whether one PyTorch module can do both directions."""
    ignored = ("name", "go_backwards", "zero_output_for_mask", "seed")
    first, second = (
        {key: item for key, item in layer.config.items() if key not in ignored}
        for layer in (ahead, back)
    )
    inner = site.inside(ahead)
    pair = inner.pair
    return (
        first == second
        and ahead.op == back.op
        and isinstance(pair, Recurrent)
        and pair.is_standard(inner)
        and not ahead.config.get("go_backwards")
    )


def _flipped(site: Site, value: Value) -> Value:
    return site.call(".flip", value, 1)
