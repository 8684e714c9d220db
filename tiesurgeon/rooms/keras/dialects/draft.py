"""One layer while it is being rewritten."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Context:
    """What holds for the whole model: the Keras that wrote it, and what was noticed."""

    major: int
    version: tuple[int, ...] = ()  # as the file says it, up to the minor one; () if it does not
    notes: list[str] = field(default_factory=list)

    def note(self, layer: object, text: str) -> None:
        """Adds one line about `layer`, once."""
        line = f"{layer}: {text}".replace("\n", " ")
        if line not in self.notes:
            self.notes.append(line)


@dataclass
class Draft:
    """A layer's class and config, changed in place by the rules.

    `dialect` keeps meanings that no Keras 3 config can express, for the layer's entry;
    `call` holds keyword arguments that every call of the layer gets.
    """

    class_name: str
    config: dict[str, Any]
    context: Context
    module: str
    dialect: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Adds one line about this layer."""
        self.context.note(self.config.get("name") or self.class_name, text)


Rule = Callable[[Draft], None]


def drop(key: str, *neutral: Any) -> Rule:
    """A rule that removes `key`, with a note unless its value is one of `neutral` (or unset)."""

    def apply(draft: Draft) -> None:
        value = draft.config.pop(key, None)
        if value is not None and value is not False and value not in neutral:
            draft.note(f"{key}={value!r} has no equal in Keras 3 and was left out")

    return apply


def discard(*keys: str) -> Rule:
    """A rule that removes keys which never change what the layer computes."""

    def apply(draft: Draft) -> None:
        for key in keys:
            draft.config.pop(key, None)

    return apply


def rename(**new_by_old: str) -> Rule:
    """A rule that renames keys; a key that already has its new name wins."""

    def apply(draft: Draft) -> None:
        for old, new in new_by_old.items():
            if old in draft.config:
                value = draft.config.pop(old)
                draft.config.setdefault(new, value)

    return apply


def become(class_name: str) -> Rule:
    """A rule that gives the layer another class."""

    def apply(draft: Draft) -> None:
        draft.class_name = class_name

    return apply
