"""The body of forward(): which calls share a line, and what each value is called.

A value that only the next line needs is `x`, so that a chain of layers reads
`x = self.conv(x)`, `x = self.dense(x)`. Others are named after their layer.
"""

from __future__ import annotations

import builtins
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tiesurgeon.graph import Call, Graph, Value, values_in
from tiesurgeon.mapping.torch_words import OPERATORS, is_module
from tiesurgeon.rooms.pytorch.code.copying import part_names
from tiesurgeon.rooms.pytorch.code.expressions import Expression, render

CHAIN = "x"
# Preparing steps that are written into the call of a module: `self.conv(x.permute(0, 2, 1))`.
_LIGHT = (OPERATORS - {"==", "!=", "<", "<=", ">", ">="}) | {
    *(".permute", ".transpose", ".flatten", ".unflatten", ".unsqueeze", ".squeeze", ".flip"),
    *(".long", ".float", ".int", ".reshape", ".size", "[]", "torch.cat"),
}
# What only looks at a value costs a line nothing.
_ACCESS = frozenset(("[]", "shape", ".size"))
# Truth values keep the name of what they say, `mask` mostly.
_TRUTH = frozenset(("==", "!=", "<", "<=", ">", ">=", "&", "|", "~", ".any", ".all", ".bool"))
_MOST_FUNCTIONS = 2
_RETURN = "return"


@dataclass
class Line:
    """One statement: the call that it is about and those written into it."""

    root: str
    members: set[str]


@dataclass
class Forward:
    """The statements of one graph's forward()."""

    graph: Graph
    parameters: Mapping[str, str]
    names: dict[Value, str] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)

    def statements(self) -> list[str]:
        """The statements, the last one a return."""
        for value in values_in(self.graph.inputs):
            name = self.graph.call_by_id[value.call].layer
            self.names[value] = name
            self.held[name] = self._last_use(value)
        texts = [
            self._statement(number, line)
            for number, line in enumerate(self._lines)
            if line.root != _RETURN
        ]
        return [*texts, self._returned()]

    # Which calls share a line.

    @cached_property
    def _calls(self) -> list[Call]:
        """The calls to be written; inputs and parameters need no line."""
        unwritten = ("placeholder", "nn.Parameter")
        return [call for call in self.graph.calls if self._op(call) not in unwritten]

    @cached_property
    def _use_count(self) -> Counter[str]:
        counts = Counter(value.call for call in self._calls for value in call.inputs)
        counts.update(value.call for value in values_in(self.graph.outputs))
        return counts

    @cached_property
    def _lines(self) -> list[Line]:
        """Lines in order; the calls written into the return are the last, rooted there."""
        lines: list[Line] = []
        position = len(self._calls)
        if isinstance(self.graph.outputs, Value):
            members = self._absorbed(None, position)
            lines.append(Line(_RETURN, members))
            position -= len(members)
        while position > 0:
            position -= 1
            root = self._calls[position]
            members = self._absorbed(root, position)
            lines.append(Line(root.id, members | {root.id}))
            position -= len(members)
        lines.reverse()
        return lines

    def _absorbed(self, root: Call | None, position: int) -> set[str]:
        """The calls just before `position` that are written into the root's line."""
        members: list[Call] = [] if root is None else [root]
        wanted = {root.id} if root else set()
        while position > 0:
            position -= 1
            call = self._calls[position]
            users = [m for m in members if call.id in {v.call for v in m.inputs}]
            is_returned = root is None and not members and self._is_output(call)
            if self._use_count[call.id] > 1 or not (users or is_returned):
                break
            if self._output_count(call) > 1 or not self._may_join(call, users, members, position):
                break
            members.append(call)
        return {member.id for member in members} - wanted

    def _may_join(self, call: Call, users: list[Call], members: list[Call], position: int) -> bool:
        op = self._op(call)
        user = users[0] if users else None
        if op in _TRUTH or (user is not None and self._tensors(user) != list(user.inputs)):
            return False  # a function of parameters, F.linear, is long enough by itself
        if op in _ACCESS:
            return True
        if user is not None and is_module(self._op(user)):
            before = self._calls[position - 1] if position else None
            follows_light = (
                before is not None
                and self._op(before) in _LIGHT
                and before.id in {value.call for value in call.inputs}
            )
            return op in _LIGHT and not follows_light
        if any(is_module(self._op(member)) for member in members):
            return False
        counted = [self._op(member) for member in members if self._op(member) not in _ACCESS]
        functions = sum(not is_module(op) for op in counted)
        if is_module(op):
            return user is None or len({value.call for value in self._tensors(user)}) == 1
        return functions < _MOST_FUNCTIONS

    def _tensors(self, call: Call) -> list[Value]:
        """The values that a call takes, parameters apart."""
        calls = self.graph.call_by_id
        return [value for value in call.inputs if self._op(calls[value.call]) != "nn.Parameter"]

    # What values are called.

    def _statement(self, number: int, line: Line) -> str:
        call = self.graph.call_by_id[line.root]
        text = render(self.graph, call, self.parameters, self._look(line)).text
        return f"{self._targets(call, number)} = {text}"

    def _targets(self, call: Call, number: int) -> str:
        count = self._output_count(call)
        if count == 1:
            return self._name(Value(call.id), number)
        first = self._name(Value(call.id), number)
        rest = [self._name(Value(call.id, index), number) for index in range(1, count)]
        if self._op(call) in _WITH_TWO_STATES:
            states = "_" if set(rest) == {"_"} else f"({', '.join(rest)})"
            return f"{first}, {states}"
        return ", ".join((first, *rest))

    def _name(self, value: Value, number: int) -> str:
        last = self._last_use(value)
        if last < 0:
            return "_"
        call = self.graph.call_by_id[value.call]
        op, body = self._op(call), self.graph.layer(call.layer).body
        hint = value.call.split(".")[0]
        is_chained = value.index == 0 and last == number + 1 and op not in _TRUTH
        if body is not None and self._output_count(call) > 1 and not is_chained:
            preferred = str(body.config["outputs"][value.index]["name"])
            hint = f"{hint}_{preferred}"
        elif op in _WITH_STATES and value.index:
            preferred, hint = "hc"[value.index - 1], f"{hint}_{'hc'[value.index - 1]}"
        else:
            preferred = CHAIN if is_chained else hint
        preferred, hint = (f"{n}_" if n in _IN_USE else n for n in (preferred, hint))
        for name in (preferred, hint, *(f"{hint}_{count}" for count in range(2, 10_000))):
            if self.held.get(name, -1) <= number:
                self.held[name] = last
                self.names[value] = name
                return name
        raise ValueError("no name is left")

    @cached_property
    def _last_uses(self) -> dict[Value, int]:
        line_of = {
            member: number for number, line in enumerate(self._lines) for member in line.members
        }
        uses = {
            value: line_of[call.id]
            for call in sorted(self._calls, key=lambda call: line_of[call.id])
            for value in call.inputs
        }
        end = len(self._lines)
        if self._lines and self._lines[-1].root == _RETURN:
            end -= 1
        uses.update(dict.fromkeys(values_in(self.graph.outputs), end))
        return uses

    def _last_use(self, value: Value) -> int:
        return self._last_uses.get(value, -1)

    def _look(self, line: Line | None) -> Any:
        def look(value: Value) -> Expression:
            call = self.graph.call_by_id[value.call]
            if self._op(call) == "nn.Parameter" or (line and call.id in line.members):
                return render(self.graph, call, self.parameters, look)
            return Expression(self.names[value])

        return look

    def _returned(self) -> str:
        line = next((line for line in self._lines if line.root == _RETURN), None)
        look = self._look(line)
        outputs = self.graph.outputs
        if isinstance(outputs, Mapping):
            items = ", ".join(f'"{key}": {look(value).text}' for key, value in outputs.items())
            return f"return {{{items}}}"
        texts = [look(value).text for value in values_in(outputs)]
        if not isinstance(outputs, Value) and len(texts) == 1:
            return f"return ({texts[0]},)"
        return f"return {', '.join(texts)}"

    def _op(self, call: Call) -> str:
        return self.graph.layer(call.layer).op

    def _is_output(self, call: Call) -> bool:
        return any(value.call == call.id for value in values_in(self.graph.outputs))

    def _output_count(self, call: Call) -> int:
        layer = self.graph.layer(call.layer)
        if layer.op in _WITH_STATES:
            return 3 if layer.op in _WITH_TWO_STATES else 2
        if layer.body is not None:
            return len(list(values_in(layer.body.outputs)))
        return 1


# Names that a local variable would hide.
_IN_USE = frozenset(dir(builtins)) | part_names()
_WITH_TWO_STATES = frozenset(("nn.LSTM", "parts.StepwiseLSTM"))
_WITH_STATES = _WITH_TWO_STATES | {"nn.GRU", "nn.RNN", "parts.StepwiseGRU", "parts.StepwiseRNN"}
