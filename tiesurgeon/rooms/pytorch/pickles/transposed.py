"""A Linear over the transpose of another layer's weight, in a form that plain PyTorch loads.

A pickle cannot hold a class of ours, but PyTorch has one that carries its own forward: the
GraphModule of torch.fx. It saves, trains, deep-copies and moves like any module, and its weight
is the very Parameter of the other layer.
https://docs.pytorch.org/docs/stable/fx.html
"""

from __future__ import annotations

import pickle
import re
from typing import Any

from tiesurgeon.errors import TieRefused
from tiesurgeon.rooms.pytorch.pickles import mappings
from tiesurgeon.rooms.pytorch.pickles.modules import GRAPH_MODULE, is_graph_module, state_of
from tiesurgeon.rooms.pytorch.pickles.nodes import Global, Record, Step

_LINEAR = Global("torch.nn.modules.linear", "Linear")
_CODE = """


def forward(self, input):
    input_1 = input
    weight = self.weight
    t = weight.t();  weight = None
    bias = {bias}
    linear = torch.nn.functional.linear(input_1, t, bias);  input_1 = t = bias = None
    return linear
    """
# As written above, or as torch.fx writes it when such a module is saved again.
_FORM = re.compile(
    r"def forward\(self, input\):\s+input_1 = input\s+weight = self\.weight\s+"
    r"t = weight\.t\(\);  weight = None\s+(bias = (self\.bias|None)\s+)?"
    r"linear = torch\.(nn\.functional|_C\._nn)\.linear\(input_1, t, (bias = )?(bias|None)\);"
    r"  input_1 = t = (bias = )?None\s+return linear\s*"
)
_IMPORTS = "import torch"
_IMPORTS_OF_FX = frozenset(
    (
        "import torch",
        "import torch.fx._pytree as fx_pytree",
        "import torch.utils._pytree as pytree",
        "from torch import device",
        "from math import inf",
        "from math import nan",
        "NoneType = type(None)",
    )
)
_OF_FX = frozenset({"_code", "_graphmodule_cls_name", "_tracer_cls", "_tracer_extras", "meta"})
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_transposed_linear(node: Any) -> bool:
    """True for a module of that form; then nothing else is in the code that loading it runs."""
    state = state_of(node)
    if state is None or not is_graph_module(node):
        return False
    code, imports = state.get("_code"), node.parts[1][1]
    if type(code) is not str or type(imports) is not str:
        return False
    are_known = all(line in _IMPORTS_OF_FX for line in imports.split("\n") if line)
    return are_known and _FORM.fullmatch(code.strip() + "\n") is not None


def transposed_linear(node: Record, name: str) -> Record:
    """The same Linear, seeing its weight transposed. Its weight is to be replaced after that.

    Raises TieRefused for a module of any other class, or with hooks.
    """
    state = state_of(node)
    if state is None or mappings.global_of(node) != _LINEAR:
        raise TieRefused(
            f"{name} is no plain nn.Linear, and only such a layer can see a transposed weight in "
            "a pickled module; tie it in a state dict (.pt), or export the model to .pt2 first"
        )
    if any(
        mappings.items(state[hooks]) for hooks in _HOOKS if mappings.is_mapping(state.get(hooks))
    ):
        raise TieRefused(
            f"{name} has hooks, which a transposed weight would drop; remove them first"
        )
    has_bias = mappings.get(state["_parameters"], "bias") is not None
    body = {**state, "_code": _CODE.format(bias="self.bias" if has_bias else "None")}
    body["_graphmodule_cls_name"] = "TransposedLinear"
    return Record(pickle.REDUCE, [Global(*GRAPH_MODULE), (body, _IMPORTS)])


def plain_linear(node: Record) -> Record:
    """The nn.Linear that a module of that form was; its weight is to be replaced after that."""
    state = state_of(node)
    assert state is not None
    kept = {name: value for name, value in state.items() if name not in _OF_FX}
    return Record(pickle.NEWOBJ, [_LINEAR, ()], [Step(pickle.BUILD, [kept])])
