"""The line that makes a tie in the user's own class, where the file can only say it."""

from __future__ import annotations


def assignment(source: str, target: str) -> str:
    """`model.decoder.weight = model.embed.weight`; members of lists by index, of dicts by key."""
    return f"{_attribute(target)} = {_attribute(source)}"


def product(source: str, target: str, *, bias: bool) -> str:
    """The call that replaces that of a Linear, whose weight is now another one transposed."""
    layer = target.rpartition(".")[0]
    added = f", {_attribute(f'{layer}.bias')}" if bias else ""
    return f"F.linear(x, {_attribute(source)}.t(){added})  # in place of {_attribute(layer)}(x)"


def _attribute(name: str) -> str:
    text = "model"
    for part in name.split("."):
        if part.isdecimal():
            text += f"[{int(part)}]"
        else:
            text += f".{part}" if part.isidentifier() else f"[{part!r}]"
    return text
