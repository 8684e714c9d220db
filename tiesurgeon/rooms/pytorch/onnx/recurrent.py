"""Recurrent modules as the exporter is to see them: each one opaque operator, one ONNX node.

PyTorch's exporter fixes the number of steps of nn.LSTM, unrolls nn.RNN, and cannot follow packed
sequences or Python loops over time. While a model is exported, its recurrent modules are
replaced by these, which become ONNX's LSTM, GRU and RNN with `sequence_lens` for masks.
https://onnx.ai/onnx/operators/onnx__LSTM.html

Runs beside `export_script.py`, in a process of its own, and imports nothing of the package.
"""

from typing import Any

import torch
from onnxscript import opset18 as op
from torch import Tensor, nn

INT32 = 6  # onnx.TensorProto.INT32

# ONNX's name of an activation, and its alpha and beta where it takes them.
ACTIVATIONS: dict[str, tuple[str, tuple[float, ...], tuple[float, ...]]] = {
    "tanh": ("Tanh", (), ()),
    "sigmoid": ("Sigmoid", (), ()),
    "relu": ("Relu", (), ()),
    "hardsigmoid": ("HardSigmoid", (1 / 6,), (0.5,)),
    "softsign": ("Softsign", (), ()),
    "softplus": ("Softplus", (), ()),
    "elu": ("Elu", (1.0,), ()),
    "linear": ("Affine", (1.0,), (0.0,)),
}
# Where ONNX has PyTorch's gates: PyTorch's LSTM is i f g o, its GRU r z n.
GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}


class OpaqueRecurrent(nn.Module):
    """An nn.LSTM, nn.GRU or nn.RNN, or a stepwise module of tiesurgeon's, with ONNX's weights.

    Its parameters bear the original's names, with both directions in one: `weight_ih_l0` has
    the shape (directions, gates x hidden, input), its gates in ONNX's order.
    """

    def __init__(self, rnn: Any, name: str) -> None:
        super().__init__()
        self.kind = kind_of(rnn)
        refuse_unusual(rnn, name)
        self.hidden_size, self.num_layers = rnn.hidden_size, rnn.num_layers
        self.batch_first, self.directions = rnn.batch_first, 2 if rnn.bidirectional else 1
        self.before_reset = int(getattr(rnn, "reset_after", True))
        self.activations = activations(rnn, self.kind, name) * self.directions
        for layer in range(rnn.num_layers):
            for role, matrix in onnx_weights(rnn, self.kind, layer).items():
                self.register_parameter(f"{role}_l{layer}", nn.Parameter(matrix))

    def forward(self, x: Tensor, state: Any = None, mask: Any = None) -> Any:
        """As the original's; only stepwise modules take a mask, whose true steps lie anywhere."""
        return self.run(x, state) if mask is None else run_masked(self, x, mask, state)

    def run(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> Any:
        """All layers in turn, over the first steps of each row where `lengths` are given."""
        x = x if self.batch_first else x.transpose(0, 1)
        final: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            x, *after = self._run(x, self._states(state, layer), lengths, layer)
            final.append(tuple(after))
        x = x if self.batch_first else x.transpose(0, 1)
        joined = final[0]
        if self.num_layers > 1:
            joined = tuple(torch.cat(parts) for parts in zip(*final, strict=True))
        return x, joined if self.kind == "LSTM" else joined[0]

    def _states(self, state: Any, layer: int) -> list[Tensor | None]:
        """The initial states of one layer; None stands for zeros."""
        given = state if isinstance(state, tuple | list) else (state,)
        if state is None:
            return [None, None] if self.kind == "LSTM" else [None]
        if self.num_layers == 1:
            return list(given)
        rows = slice(layer * self.directions, (layer + 1) * self.directions)
        return [one[rows] for one in given]

    def _run(
        self, x: Tensor, states: list[Tensor | None], lengths: Tensor | None, layer: int
    ) -> tuple[Tensor, ...]:
        weights = [getattr(self, f"{role}_l{layer}") for role in ("weight_ih", "weight_hh", "bias")]
        names = [name for name, _, _ in self.activations]
        alpha = [number for _, numbers, _ in self.activations for number in numbers]
        beta = [number for _, _, numbers in self.activations for number in numbers]
        operator = getattr(torch.ops.tiesurgeon, self.kind.lower())
        more = (self.before_reset,) if self.kind == "GRU" else ()
        result: tuple[Tensor, ...] = operator(
            x, *states, lengths, *weights, self.hidden_size, ",".join(names), alpha, beta, *more
        )
        return result


def kind_of(rnn: Any) -> str:
    """LSTM, GRU or RNN."""
    kinds = {nn.LSTM: "LSTM", nn.GRU: "GRU", nn.RNN: "RNN"}
    return next(kind for base, kind in kinds.items() if isinstance(rnn, base))


def refuse_unusual(rnn: Any, name: str) -> None:
    """ValueError for what ONNX's operators lack."""
    if getattr(rnn, "proj_size", 0):
        raise ValueError(f"{name} has proj_size={rnn.proj_size}, which ONNX's LSTM does not have")


def activations(
    rnn: Any, kind: str, name: str
) -> list[tuple[str, tuple[float, ...], tuple[float, ...]]]:
    """ONNX's activations of one direction: f, g, h of an LSTM, f, g of a GRU, f of an RNN.

    ValueError for one that ONNX's operators do not take.
    """
    default = getattr(rnn, "nonlinearity", "tanh") if kind == "RNN" else "tanh"
    given = getattr(rnn, "activation", None), getattr(rnn, "recurrent_activation", None)
    called = [
        fallback if function is None else getattr(function, "__name__", str(function))
        for function, fallback in zip(given, (default, "sigmoid"), strict=True)
    ]
    for one in called:
        if one not in ACTIVATIONS:
            raise ValueError(f"{name} has the activation {one}, which ONNX's {kind} does not have")
    main, gate = (ACTIVATIONS[one] for one in called)
    return {"LSTM": [gate, main, main], "GRU": [gate, main], "RNN": [main]}[kind]


def onnx_weights(rnn: Any, kind: str, layer: int) -> dict[str, Tensor]:
    """The weights of one layer, directions stacked, gates in ONNX's order."""
    ends = ("", "_reverse") if rnn.bidirectional else ("",)

    def ordered(role: str, end: str) -> Tensor:
        gates = getattr(rnn, f"{role}_l{layer}{end}").detach().chunk(len(GATES[kind]))
        return torch.cat([gates[index] for index in GATES[kind]])

    def bias(end: str) -> Tensor:
        if rnn.bias:
            return torch.cat([ordered("bias_ih", end), ordered("bias_hh", end)])
        rows = len(GATES[kind]) * rnn.hidden_size
        return rnn.weight_hh_l0.new_zeros(2 * rows)

    return {
        "weight_ih": torch.stack([ordered("weight_ih", end) for end in ends]),
        "weight_hh": torch.stack([ordered("weight_hh", end) for end in ends]),
        "bias": torch.stack([bias(end) for end in ends]),
    }


def run_masked(rnn: OpaqueRecurrent, x: Tensor, mask: Tensor, state: Any = None) -> Any:
    """`run_masked` of a written model.py, with lengths where that packs the sequence."""
    step = mask.cumsum(dim=1) - 1  # the latest step run, -1 before the first one
    count = mask.sum(dim=1)
    skipped = count[:, None] + mask.logical_not().cumsum(dim=1) - 1
    place = torch.where(mask, step, skipped)  # steps to run come first
    x = torch.zeros_like(x).scatter(1, place.unsqueeze(-1).expand_as(x), x)
    x, final = rnn.run(x, state, count.clamp(min=1).to(torch.int32))
    output = x.gather(1, step.clamp(min=0).unsqueeze(-1).expand(-1, -1, x.shape[-1]))
    output = output.masked_fill((step < 0).unsqueeze(-1), 0)
    return output, keep_initial(final, state, count == 0)


def keep_initial(final: Any, initial: Any, empty: Tensor) -> Any:
    """The final states, with the initial ones in the rows that had no step to run."""
    if isinstance(final, tuple):
        pairs = zip(final, initial or (None, None), strict=True)
        return tuple(keep_initial(after, before, empty) for after, before in pairs)
    before = torch.zeros_like(final) if initial is None else initial
    return torch.where(empty[:, None], before, final)


# --- the operators: known to the exporter by their shapes alone, never run --------------------


@torch.library.custom_op("tiesurgeon::lstm", mutates_args=())
def lstm(
    x: Tensor, h: Tensor | None, c: Tensor | None, lengths: Tensor | None,
    w: Tensor, r: Tensor, b: Tensor,
    hidden: int, activations: str, alpha: list[float], beta: list[float],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(batch, steps, input) -> (batch, steps, directions x hidden), and both final states."""
    raise NotImplementedError("it is only exported")


@torch.library.custom_op("tiesurgeon::gru", mutates_args=())
def gru(
    x: Tensor, h: Tensor | None, lengths: Tensor | None, w: Tensor, r: Tensor, b: Tensor,
    hidden: int, activations: str, alpha: list[float], beta: list[float], before_reset: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(batch, steps, input) -> (batch, steps, directions x hidden), and the final state."""
    raise NotImplementedError("it is only exported")


@torch.library.custom_op("tiesurgeon::rnn", mutates_args=())
def rnn(
    x: Tensor, h: Tensor | None, lengths: Tensor | None, w: Tensor, r: Tensor, b: Tensor,
    hidden: int, activations: str, alpha: list[float], beta: list[float],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(batch, steps, input) -> (batch, steps, directions x hidden), and the final state."""
    raise NotImplementedError("it is only exported")


@lstm.register_fake
def _(
    x: Tensor, h: Any, c: Any, lengths: Any, w: Tensor, r: Tensor, b: Tensor, hidden: int, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return (*shapes(x, w, hidden), shapes(x, w, hidden)[1])


@gru.register_fake
def _(
    x: Tensor, h: Any, lengths: Any, w: Tensor, r: Tensor, b: Tensor, hidden: int, *_: Any
) -> tuple[Tensor, Tensor]:
    return shapes(x, w, hidden)


@rnn.register_fake
def _(
    x: Tensor, h: Any, lengths: Any, w: Tensor, r: Tensor, b: Tensor, hidden: int, *_: Any
) -> tuple[Tensor, Tensor]:
    return shapes(x, w, hidden)


def shapes(x: Tensor, w: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
    """An output for every step, its directions side by side, and one final state."""
    directions = w.shape[0]
    output = x.new_empty(x.shape[0], x.shape[1], directions * hidden)
    return output, x.new_empty(directions, x.shape[0], hidden)


def lstm_node(x, h, c, lengths, w, r, b, hidden, activations, alpha, beta):
    """The operator as ONNX's LSTM."""
    y, h, c = op.LSTM(
        op.Transpose(x, perm=[1, 0, 2]), w, r, b, lengths, h, c,
        hidden_size=hidden, **options(activations, alpha, beta, 3),
    )  # fmt: skip
    return batch_first(y), h, c


def gru_node(x, h, lengths, w, r, b, hidden, activations, alpha, beta, before_reset):
    """The operator as ONNX's GRU."""
    y, h = op.GRU(
        op.Transpose(x, perm=[1, 0, 2]), w, r, b, lengths, h,
        hidden_size=hidden, linear_before_reset=before_reset,
        **options(activations, alpha, beta, 2),
    )  # fmt: skip
    return batch_first(y), h


def rnn_node(x, h, lengths, w, r, b, hidden, activations, alpha, beta):
    """The operator as ONNX's RNN."""
    y, h = op.RNN(
        op.Transpose(x, perm=[1, 0, 2]), w, r, b, lengths, h,
        hidden_size=hidden, **options(activations, alpha, beta, 1),
    )  # fmt: skip
    return batch_first(y), h


def options(activations: str, alpha: list[float], beta: list[float], each: int) -> dict[str, Any]:
    """The attributes that all three have; defaults are left out."""
    names = activations.split(",")
    found = {"activations": names, "activation_alpha": alpha, "activation_beta": beta}
    given: dict[str, Any] = {key: value for key, value in found.items() if value}
    return {**given, "direction": "bidirectional" if len(names) > each else "forward"}


def batch_first(y):
    """(steps, directions, batch, hidden) -> (batch, steps, directions x hidden)."""
    return op.Reshape(op.Transpose(y, perm=[2, 0, 1, 3]), op.Constant(value_ints=[0, 0, -1]))


TRANSLATIONS = {
    torch.ops.tiesurgeon.lstm.default: lstm_node,
    torch.ops.tiesurgeon.gru.default: gru_node,
    torch.ops.tiesurgeon.rnn.default: rnn_node,
}


def make_opaque(code: Any, module: nn.Module) -> None:
    """Puts the opaque form in the place of every recurrent module, and of what skips steps.

    `code` is the model.py that the module comes from.
    """
    if hasattr(code, "run_masked"):
        code.run_masked = run_masked
    for name, child in list(module.named_modules()):
        if name and isinstance(child, nn.RNNBase):
            owner, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(owner), leaf, OpaqueRecurrent(child, name))
