"""Names that people type -> layers and variables, and back to the shortest such name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from tiesurgeon.errors import UnknownName
from tiesurgeon.graph import Graph, Layer, View

# These show what they wrap under their own name: "out" around "dense_out" is one layer.
TRANSPARENT = frozenset({"TimeDistributed"})


@dataclass(frozen=True)
class Spot:
    """A layer, and the variable of it that is meant; `path` is as `Graph.walk()` gives it."""

    path: str
    layer: Layer
    view: View | None

    @property
    def variable(self) -> str:
        """Full name of the variable, or the layer's path if it holds none."""
        return self.path if self.view is None else self.layer.name_of(self.view, self.path)


def matrices(layer: Layer) -> tuple[View, ...]:
    """The layer's own variables of two dimensions or more."""
    return tuple(view for view in layer.views if _is_matrix(view))


def resolve(graph: Graph, text: str) -> Spot:
    """The layer or variable that `text` names: a full path, or a tail of one if unique.

    Raises UnknownName, with the nearest names, with the full paths of an ambiguous
    name, or with the variables of a layer that holds several matrices.
    """
    return Names(graph).resolve(text)


class Names:
    """All names of a graph, indexed once for many look-ups."""

    def __init__(self, graph: Graph) -> None:
        self._spots: dict[str, Spot] = {}  # by canonical full name
        self._full: dict[str, Spot] = {}  # by any full name, a wrapper's part left out or not
        self._tails: dict[str, list[Spot]] = {}
        self._names: dict[str, list[str]] = {}  # canonical full name -> every name for it
        self._variables: dict[str, Spot] = {}  # by what the file calls the variable itself
        self._is_dotted = any(layer.separator == "." for layer in graph.layers)
        for layer in graph.layers:
            self._enter(layer, layer.name, [layer.name])

    def _enter(self, layer: Layer, path: str, forms: list[str]) -> None:
        if layer.op in TRANSPARENT and len(layer.inner) == 1:
            (inner,) = layer.inner
            parents = [form.rpartition("/")[0] for form in forms]
            without = [f"{parent}/{inner.name}".lstrip("/") for parent in parents]
            both = [f"{form}/{inner.name}" for form in forms]
            self._enter(inner, f"{path}/{inner.name}", list(dict.fromkeys(forms + both + without)))
            return
        self._add(Spot(path, layer, None), path, forms)
        for view in layer.views:
            named = [layer.name_of(view, form) for form in forms]
            self._add(Spot(path, layer, view), layer.name_of(view, path), named)
        nested = layer.body.layers if layer.body is not None else ()
        for child in layer.inner + nested:
            names = [f"{form}/{child.name}" for form in forms]
            self._enter(child, f"{path}/{child.name}", names)

    def _add(self, spot: Spot, path: str, forms: list[str]) -> None:
        self._spots[path] = spot
        if spot.view is not None:
            self._variables.setdefault(spot.view.variable.name, spot)
        separator = spot.layer.separator
        tails = dict.fromkeys(tail for form in forms for tail in _tails(form, separator))
        self._names[path] = list(tails)
        for form in forms:
            self._full.setdefault(form, spot)
        for tail in tails:
            self._tails.setdefault(tail, []).append(spot)

    def resolve(self, text: str) -> Spot:
        """As the function `resolve`."""
        text = text.strip("/ ")
        if text not in self._tails and self._is_dotted:
            text = text.replace("/", ".")  # as names of other frameworks are written
        spot = self._spots.get(text) or self._full.get(text) or self._unique(text)
        return spot if spot.view is not None else self._with_matrix(spot)

    def _unique(self, text: str) -> Spot:
        found = self._tails.get(text, [])
        if not found and text in self._variables:  # an initializer: its first use
            return self._variables[text]
        if not found:
            raise UnknownName(self._unknown(text))
        if len({_identity(spot) for spot in found}) > 1:
            paths = ", ".join(sorted(spot.variable for spot in found))
            raise UnknownName(f"{text!r} is ambiguous; say which one: {paths}")
        return found[0]  # several only where layers share what they hold

    def _unknown(self, text: str) -> str:
        known = list(self._tails)
        near = difflib.get_close_matches(text, known, n=4, cutoff=0.5)
        if not near:
            near = [name for name in known if text.lower() in name.lower()][:4] if text else []
        if near:
            return f"no layer or variable is named {text!r}; the nearest are {', '.join(near)}"
        views = {name: spot.view for name, spot in self._spots.items() if spot.view is not None}
        holders = [name for name, view in views.items() if _is_matrix(view)]
        some = ", ".join(holders[:4]) + (", ..." if len(holders) > 4 else "")
        hint = f"; it holds {some}" if some else "; it holds no weights"
        return f"no layer or variable of this model is named {text!r}{hint}"

    def _with_matrix(self, spot: Spot) -> Spot:
        below = f"{spot.path}{spot.layer.separator}"
        found = [
            other
            for name, other in self._spots.items()
            if name.startswith(below) and other.view is not None and _is_matrix(other.view)
        ]
        own = [other for other in found if other.path == spot.path]
        if not found:
            return spot
        if len(own) == len(found) == 1:
            return own[0]
        listed = ", ".join(s.variable for s in found[:8]) + (", ..." if len(found) > 8 else "")
        count = "several matrices" if len(found) > 1 else "its matrix in a nested layer"
        kind = f" ({spot.layer.op})" if spot.layer.op else ""
        raise UnknownName(f"{spot.path!r}{kind} holds {count}; name the one you mean: {listed}")

    def short(self, spot: Spot) -> str:
        """The shortest name that leads to this variable, as one would type it."""
        layer_names = self._names.get(spot.path, [])
        variable_names = self._names.get(spot.variable, []) if spot.view else []

        def levels(name: str) -> int:
            return name.count(spot.layer.separator)

        by_length = sorted(layer_names, key=levels)
        by_length += sorted(variable_names, key=levels)
        # A bare role ("kernel") may be unique and still tells a reader nothing.
        roles = {view.role for view in spot.layer.views}
        for name in by_length:
            if name not in roles and self._leads_to(name, spot):
                return name
        return spot.variable

    def _leads_to(self, name: str, spot: Spot) -> bool:
        try:
            found = self.resolve(name)
        except UnknownName:
            return False
        return found.path == spot.path and found.view is spot.view


def _tails(form: str, separator: str) -> Iterator[str]:
    parts = form.split(separator)
    for start in range(len(parts)):
        yield separator.join(parts[start:])


def _identity(spot: Spot) -> tuple[int, str]:
    if spot.view is not None:
        return id(spot.view.variable), "variable"
    held = [view.variable for view in spot.layer.all_views()]
    return (id(held[0]) if held else id(spot.layer)), "layer"


def _is_matrix(view: View) -> bool:
    return len(view.shape) >= 2
