"""What `inspect` prints, for a reader who sees such a report for the first time."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from tiesurgeon.find import Candidate, Tie
from tiesurgeon.fit import METHODS
from tiesurgeon.formats import FORMATS, UNTRANSPOSED
from tiesurgeon.graph import Graph
from tiesurgeon.inspection import Inspection, Inspections
from tiesurgeon.orientation import is_dotted
from tiesurgeon.report.layers import layer_table, plain

_MOST_CANDIDATES = 12
_TITLES = {known.name: known.title.removeprefix("a ").removeprefix("an ") for known in FORMATS}
_ROLES = {
    "embedding-output": "embedding and output layer",
    "embedding-embedding": "two embeddings",
    "dense-dense": "dense layers, encoder and decoder",
    "conv-conv": "two convolutions",
    "conv-convtranspose": "convolution and its transpose",
    "duplicate": "same values",
}
_MATCHES = {
    "equal": ("equal bit by bit", "bold green"),
    "declared": ("declared", "bold green"),
    "close": ("nearly equal", "bold yellow"),
    "different": ("different values", "bold yellow"),
    None: ("values not compared", "bold"),
}


def print_inspection(console: Console, found: Inspection) -> None:
    """One file: what it is, its layers, what is tied, what could be, what to type next."""
    _header(console, found)
    console.print(layer_table(found, console))
    _ties(console, found)
    _candidates(console, found)
    for warning in found.warnings:
        console.print(Padding(f"[yellow]note:[/] {_marked(warning)}", (1, 0, 0, 0)))
    _next(console, found)


def print_several(console: Console, found: Inspections) -> None:
    """Each file, then what is equal between them."""
    for one in found.files:
        print_inspection(console, one)
        console.print()
        console.rule(style="dim")
    _title(console, "Equal between the files")
    if not found.between:
        console.print("  no matrix is equal bit by bit in two of them")
    for candidate in found.between:
        _pair(console, candidate)
        console.print(f"     {_ROLES[candidate.role]}, {size(candidate.saves_bytes)}")


def size(count: int) -> str:
    """Bytes for people: KB and MB are thousands and millions."""
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= step:
            return f"{count / step:,.1f} {unit}"
    return f"{count} bytes"


def _marked(text: str) -> str:
    """The same for where rich reads markup."""
    return escape(plain(text))


def _title(console: Console, text: str) -> None:
    console.print()
    console.print(text, style="bold")


def _header(console: Console, found: Inspection) -> None:
    console.print(_marked(str(found.path)), style="bold", soft_wrap=True)
    console.print(f"{_TITLES[found.format]} ({found.format}), written by {_marked(found.writer)}")
    line = f"{found.unique_parameters:,} parameters, {size(found.unique_bytes)}"
    shared = found.total_parameters - found.unique_parameters
    if shared:
        line += f" ({found.total_parameters:,} if nothing were shared)"
    dtypes = sorted({v.storage.dtype.name for v in found.graph.variables()})
    console.print(f"{line}, {' and '.join(dtypes)}" if dtypes else line)
    console.print()


# --- ties and candidates ----------------------------------------------------------------------


def _ties(console: Console, found: Inspection) -> None:
    _title(console, "Already tied")
    ties = [tie for tie in found.ties if tie.kind == "tie"]
    separator = next((layer.separator for layer in found.graph.layers), "/")
    for line in _tie_lines(ties, separator):
        console.print(line, style="green")
    if not ties:
        console.print("  nothing")
    aliases = [tie for tie in found.ties if tie.kind == "alias"]
    for tie in aliases:
        both = f"{_marked(tie.target)} and {_marked(tie.source)}"
        console.print(f"  {both} {_alias_words(found.graph)}", style="yellow")


def _alias_words(graph: Graph) -> str:
    if graph.is_bare:
        return "are stored once: they are tied if the class that loads them ties them"
    return "sit on one storage but are two variables: they look tied and are trained apart"


def _tie_lines(ties: Sequence[Tie], separator: str) -> Iterator[str]:
    """One line a layer that is called several times, one a pair of layers."""
    called: dict[tuple[str, int], list[str]] = {}
    for tie in ties:
        if tie.source == tie.target:
            layer, _, role = tie.source.rpartition(separator)
            called.setdefault((layer, tie.uses), []).append(role)
        else:
            turned = ", transposed" if tie.perm else ""
            yield f"  {_marked(tie.target)} <- {_marked(tie.source)}  (one variable{turned})"
    for (layer, uses), roles in called.items():
        held = "one set of weights" if len(roles) > 1 else "one matrix"
        yield f"  {_marked(layer)} is used {uses} times  ({held}: {_marked(', '.join(roles))})"


def _candidates(console: Console, found: Inspection) -> None:
    _title(console, "Could be tied" + (", best first" if len(found.candidates) > 1 else ""))
    if not found.candidates:
        console.print("  no two matrices of this model belong together, as far as can be told")
    for number, candidate in enumerate(found.candidates[:_MOST_CANDIDATES], 1):
        _pair(console, candidate, number)
        for line in _about(candidate):
            console.print(Padding(line, (0, 0, 0, 5)))
    more = len(found.candidates) - _MOST_CANDIDATES
    if more > 0:
        console.print(f"  ... and {more} more; --json lists them all")


def _pair(console: Console, candidate: Candidate, number: int | None = None) -> None:
    words, style = _MATCHES[candidate.match]
    line = Text(f"  {number}. " if number else "   - ")
    line.append(plain(f"{candidate.target} <- {candidate.source}"), style="bold")
    line.append("  transposed  " if candidate.perm else "  ")
    line.append(words, style=style)
    console.print(line)


def _about(candidate: Candidate) -> Iterator[Text]:
    first = _ROLES[candidate.role]
    if candidate.saves_bytes:
        first += f"; saves {size(candidate.saves_bytes)}"
    yield Text(first)
    if candidate.match in ("close", "different"):
        yield Text(", ".join(_distances(candidate)))
    yield Text(plain(candidate.reason), style="dim")


def _distances(candidate: Candidate) -> Iterator[str]:
    if candidate.relative_difference is not None:
        yield f"relative difference {candidate.relative_difference:.3g}"
    else:
        yield "not comparable: it holds numbers that are not finite, or only zeros"
    if candidate.cosine is not None:
        yield f"mean row cosine {round(candidate.cosine, 2) + 0.0:.2f}"


# --- what to type next ------------------------------------------------------------------------


def _next(console: Console, found: Inspection) -> None:
    worth = [c for c in found.candidates if _changes_something(found.graph, c)]
    if not worth or not _can_be_changed(found.graph):
        return
    _title(console, "Next")
    best = next((c for c in worth if _can_be_said(found, c)), None)
    if best is None:
        title = _TITLES[found.format]
        say = (
            f"No {title} can say that a matrix is another one transposed; a whole module, "
            "a .pt state dict and a .pt2 can."
        )
        console.print(Padding(say, (0, 0, 0, 2)))
        return
    command = f"tiesurgeon tie {shlex.quote(str(found.path))}"
    pair = f" --pair {shlex.quote(best.source)} {shlex.quote(best.target)}"
    if best.match in ("equal", "declared"):
        together = [c for c in found.candidates if c.match == best.match == "equal"]
        if best.match == "equal":
            say = "Tying values that are equal changes no output:"
        else:
            say = "The layer will use the source's values; compare the outputs after tying:"
        console.print(f"  {say}")
        _command(console, command + pair)
        if len(together) > 1:
            console.print("  All that is equal at once:")
            _command(console, f"{command} --duplicates")
        return
    console.print(Padding(_caution(best), (0, 0, 0, 2)))
    _command(console, f"{command}{pair} --method mean")


def _can_be_said(found: Inspection, candidate: Candidate) -> bool:
    return candidate.perm is None or found.format not in UNTRANSPOSED


def _can_be_changed(graph: Graph) -> bool:
    """True unless it is Keras' weights alone: a Keras file needs its graph, PyTorch's do not."""
    return bool(graph.calls) or graph.op == "Sequential" or any(map(is_dotted, graph.layers))


def _changes_something(graph: Graph, candidate: Candidate) -> bool:
    """False for two names of a state dict that are stored once: no file can say more."""
    is_stored_once = candidate.match == "equal" and not candidate.saves_bytes
    return not (is_stored_once and graph.is_bare)


def _caution(best: Candidate) -> str:
    methods = f"{', '.join(METHODS[:-1])} or {METHODS[-1]}"
    if best.match is None:
        return f"Values were not compared. Where they differ, a method is needed ({methods}):"
    difference = ""
    if best.relative_difference is not None:
        difference = f" by {best.relative_difference:.3g} (0 is equal, 1 and more is unrelated)"
    if best.match == "close":
        return f"The values differ{difference}. Choose whose to keep ({methods}):"
    return (
        f"The values differ{difference}, so tying changes what the model does, and it has "
        f"to be trained on. Choose the values to start from ({methods}):"
    )


def _command(console: Console, command: str) -> None:
    console.print(Text(f"    {plain(command)}", style="bold cyan"), soft_wrap=True)
