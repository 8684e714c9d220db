"""LSTM, GRU and SimpleRNN.

With Keras' default activations they are nn.LSTM, nn.GRU and nn.RNN; otherwise the stepwise
modules of parts/recurrent.py, which have the same parameters. A masked step keeps the state
and repeats the output before it, zeros at the start.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from tiesurgeon.graph import Layer, Value, values_in
from tiesurgeon.mapping.activation_functions import as_argument
from tiesurgeon.mapping.building import Dims, Fact
from tiesurgeon.mapping.layout import TRANSPOSE, Gates, Part, Permute, Reshape, layout
from tiesurgeon.mapping.registry import (
    Constant,
    Example,
    Pair,
    Weight,
    WeightPair,
    layer_pair,
)
from tiesurgeon.mapping.site import Site

COMMON = frozenset(
    """
    units activation recurrent_activation use_bias unit_forget_bias return_sequences return_state
    go_backwards stateful unroll dropout recurrent_dropout implementation zero_output_for_mask
    use_cudnn
    """.split()
)


class Recurrent(Pair):
    """What the three have in common."""

    options = COMMON
    stepwise: ClassVar[str]
    state_count: ClassVar[int] = 1

    def shape(self, layer: Layer, *shapes: Dims) -> None:
        return None

    def arguments(self, layer: Layer) -> dict[str, Any]:
        kernel = layer.view("kernel")
        assert kernel is not None
        arguments = {"input_size": kernel.shape[0], "hidden_size": layer.config["units"]}
        return arguments if layer.view("bias") else {**arguments, "bias": False}

    def is_standard(self, site: Site) -> bool:
        """Whether PyTorch's own module computes this."""
        return not site.option("recurrent_dropout")

    def stepwise_arguments(self, site: Site) -> dict[str, Any]:
        """The further arguments of the stepwise module, where they differ from its defaults."""
        arguments: dict[str, Any] = {}
        for option, default in (("activation", "tanh"), ("recurrent_activation", "sigmoid")):
            if option in site.layer.config and site.option(option) != default:
                arguments[option] = as_argument(site, site.option(option))
        if site.option("recurrent_dropout"):
            arguments["recurrent_dropout"] = site.option("recurrent_dropout")
        return arguments

    def call(self, site: Site, value: Value, initial: Any, mask: Value | None) -> Value:
        """The module's output; its states are the outputs 1 and on, of shape (1, batch, units)."""
        layer = site.layer
        if site.option("stateful"):
            raise site.refuse("stateful=True")
        options: dict[str, Any] = {} if mask is None else {"mask": mask}
        value = with_dropout(site, value)
        args = [value] if initial is None else [value, states_as_argument(site, initial)]
        config = self.arguments(layer)
        if self.is_standard(site):
            output = site.module(*args, config={**config, "batch_first": True}, **options)
        else:
            config.update(self.stepwise_arguments(site))
            output = site.module(*args, op=self.stepwise, config=config, **options)
        self._note(site, value, output)
        return output

    def _note(self, site: Site, value: Value, output: Value) -> None:
        fact, units = site.fact(value), site.option("units")
        site.note(output, (*fact.shape[:2], units), "float32")
        for index in range(self.state_count):
            state = Fact((1, fact.shape[0], units), "float32")
            site.body.output(output, 1 + index, state)

    def last(self, site: Site, output: Value, index: int = 0, direction: int = -1) -> Value:
        """A state after the last step, of shape (batch, units)."""
        state = Value(output.call, 1 + index)
        shape = site.fact(state).shape[1:]
        value = site.call("[]", state, direction, shape=shape)
        site.body.states[value] = state
        return value

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value | tuple[Value, ...]:
        value, initial, mask = sequence_arguments(args, kwargs)
        if site.option("go_backwards"):
            value = site.call(".flip", value, 1)
            mask = None if mask is None else site.call(".flip", mask, 1, hint="mask")
        output = self.call(site, value, initial, mask)
        result = output if site.option("return_sequences") else self.last(site, output)
        if mask is not None and site.option("zero_output_for_mask"):
            result = _zeroed(site, result, mask)
        if not site.option("return_state"):
            return result
        return result, *(self.last(site, output, index) for index in range(self.state_count))


def _recurrent_examples(*more: Example) -> tuple[Example, ...]:
    units = {"units": 3}
    return (
        Example(((7, 5),), units),
        Example(((None, 5),), {**units, "return_sequences": True}, mask=True),
        Example(((7, 5),), {**units, "go_backwards": True, "return_sequences": True}, mask=True),
        Example(((7, 5),), {**units, "return_state": True}, mask=True),
        Example(((7, 5),), {**units, "use_bias": False, "dropout": 0.2}),
        Example(((7, 5),), {**units, "activation": "relu", "recurrent_dropout": 0.2}, mask=True),
        Example(
            ((7, 5),), {**units, "zero_output_for_mask": True, "return_sequences": True}, mask=True
        ),
        *more,
    )


@layer_pair(keras="LSTM", torch="nn.LSTM")
class LSTM(Recurrent):
    """The gates lie in the same order in both; PyTorch has a second bias, kept at zero."""

    weights = (
        WeightPair("kernel", "weight_ih_l0", TRANSPOSE),
        WeightPair("recurrent_kernel", "weight_hh_l0", TRANSPOSE),
        WeightPair("bias", "bias_ih_l0"),
        Constant("bias_hh_l0", like="bias_ih_l0"),
    )
    stepwise = "parts.StepwiseLSTM"
    state_count = 2
    examples = _recurrent_examples(
        Example(
            ((7, 5),),
            {"units": 3, "recurrent_activation": "hard_sigmoid", "return_sequences": True},
        )
    )

    def is_standard(self, site: Site) -> bool:
        return super().is_standard(site) and _default(site, "tanh", "sigmoid")


@layer_pair(keras="GRU", torch="nn.GRU")
class GRU(Recurrent):
    """Keras has the gates as z, r, h, PyTorch as r, z, n; only reset_after=True is nn.GRU."""

    options = COMMON | {"reset_after"}
    stepwise = "parts.StepwiseGRU"
    examples = _recurrent_examples(
        Example(((7, 5),), {"units": 3, "reset_after": False, "return_sequences": True}, mask=True),
        Example(((7, 5),), {"units": 3, "recurrent_activation": "hard_sigmoid"}),
    )

    def weights_of(self, layer: Layer) -> Iterable[Weight]:
        reorder = Gates((1, 0, 2))
        matrix = layout(Permute((1, 0)), reorder)
        yield WeightPair("kernel", "weight_ih_l0", matrix)
        yield WeightPair("recurrent_kernel", "weight_hh_l0", matrix)
        bias = layer.view("bias")
        if bias is None:
            return
        if len(bias.shape) == 1:  # reset_after=False
            yield WeightPair("bias", "bias_ih_l0", layout(reorder))
            yield Constant("bias_hh_l0", like="bias_ih_l0")
            return
        flat = Reshape(bias.shape, (bias.shape[0] * bias.shape[1],))
        for index, name in enumerate(("bias_ih_l0", "bias_hh_l0")):
            yield WeightPair("bias", name, layout(flat, Part(index, 2), reorder))

    def is_standard(self, site: Site) -> bool:
        reset_after = site.option("reset_after", True)
        return super().is_standard(site) and reset_after and _default(site, "tanh", "sigmoid")

    def stepwise_arguments(self, site: Site) -> dict[str, Any]:
        arguments = super().stepwise_arguments(site)
        return (
            arguments if site.option("reset_after", True) else {**arguments, "reset_after": False}
        )


@layer_pair(keras="SimpleRNN", torch="nn.RNN")
class SimpleRNN(Recurrent):
    """h = tanh(x @ kernel + h @ recurrent_kernel + bias)"""

    weights = LSTM.weights
    stepwise = "parts.StepwiseRNN"
    examples = _recurrent_examples(
        Example(((7, 5),), {"units": 3, "activation": "sigmoid", "return_sequences": True})
    )

    def is_standard(self, site: Site) -> bool:
        return super().is_standard(site) and site.option("activation") in ("tanh", "relu")

    def arguments(self, layer: Layer) -> dict[str, Any]:
        arguments = super().arguments(layer)
        if layer.config.get("activation") == "relu" and not layer.config.get("recurrent_dropout"):
            arguments["nonlinearity"] = "relu"
        return arguments


def sequence_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Value, list[Value] | None, Value | None]:
    """The sequence, the initial states and the mask of a recurrent call."""
    values = list(values_in(args))
    initial = list(values_in(kwargs.get("initial_state"))) or values[1:] or None
    mask = kwargs.get("mask")
    return values[0], initial, mask if isinstance(mask, Value) else None


def states_as_argument(site: Site, states: list[Value]) -> Any:
    """States of shape (batch, units) as PyTorch takes them: (1, batch, units), a pair for an
    LSTM. A state that comes from another module as it is goes in without a detour."""
    shaped = [
        site.body.states.get(state)
        or site.call(".unsqueeze", state, 0, shape=(1, *site.fact(state).shape))
        for state in states
    ]
    return shaped[0] if len(shaped) == 1 else tuple(shaped)


def with_dropout(site: Site, value: Value) -> Value:
    """The input after Keras' `dropout`, which drops the same features at every step."""
    if not site.option("dropout"):
        return value
    config = {"p": site.option("dropout"), "shared": (1,)}
    return site.module(
        value, op="parts.SharedDropout", config=config, weights=(), suffix="_dropout"
    )


def _default(site: Site, activation: str, recurrent: str) -> bool:
    names = site.option("activation"), site.option("recurrent_activation")
    return names == (activation, recurrent)


def _zeroed(site: Site, value: Value, mask: Value) -> Value:
    if site.fact(value).rank == 2:
        mask = site.call("[]", mask, (slice(None), -1), shape=(None,))
    return site.call("*", value, site.call(".unsqueeze", mask, -1))
