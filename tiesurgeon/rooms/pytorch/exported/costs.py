"""What a tie in a program would cost, or break: said before it is made."""

from __future__ import annotations

from collections.abc import Iterator

from tiesurgeon.errors import TieRefused
from tiesurgeon.rooms.pytorch.exported.holdings import Holding, Holdings
from tiesurgeon.rooms.pytorch.exported.operators import argument_of, word_of
from tiesurgeon.rooms.pytorch.exported.program import Node, Program

_LOOKUPS = ("Embedding", "EmbeddingBag")


def refuse_unsharable(
    program: Program, holdings: Holdings, source: Holding, target: Holding
) -> None:
    """TieRefused for what is no parameter, or is written to while the program runs.

    So are two weights of one layer, since a graph does not say which of them a node uses.
    """
    for tensor in (source.tensor, target.tensor):
        found = program.input_of(tensor)
        if found.role != "parameter":
            raise TieRefused(f"{tensor} is a {found.role.replace('_', ' ')}, and only weights tie")
        if any(
            tensor in spec.get("parameter_mutation", {}).values() for spec in program.output_specs
        ):
            raise TieRefused(f"{tensor} is written to by the program, so it cannot be shared")
        for read in (read for name in holdings.of(tensor) for read in name.reads):
            if read.argument == "self" and _is_in_place(program.nodes[read.node]):
                how = _how_written(program.nodes[read.node])
                raise TieRefused(f"{tensor} is {how}, so it cannot be shared")
    layers = {name.layer for name in holdings.of(source.tensor)}
    for name in holdings.of(target.tensor):
        if name.layer in layers:
            raise TieRefused(
                f"{source.name} and {name.name} belong to one layer, in which a program does not "
                "say which is which; tie them in the code and export it again"
            )
    is_used = any(name.reads for name in holdings.of(target.tensor))
    if not is_used and not holdings.are_alike(source.tensor, target.tensor):
        raise TieRefused(f"{target.name} is not used by the program, so there is nothing to tie")


def _is_in_place(node: Node) -> bool:
    parts = str(node["target"]).split(".")
    return len(parts) > 3 and parts[3].endswith("_") and not parts[3].endswith("__")


def _how_written(node: Node) -> str:
    if "embedding_renorm_" in str(node["target"]):
        return "rescaled in place by each lookup (max_norm)"
    return f"written to by {node['target']}"


def costs(program: Program, holdings: Holdings, source: Holding, target: Holding) -> Iterator[str]:
    """Warnings about rows and gradients that behave otherwise once the two are one."""
    if holdings.are_alike(source.tensor, target.tensor):
        return  # the model was tied when it was traced
    names = [*holdings.of(source.tensor), *holdings.of(target.tensor)]
    nodes = [(name, program.nodes[read.node]) for name in names for read in name.reads]
    lookups = [(name, node) for name, node in nodes if word_of(node) in _LOOKUPS]
    if len(lookups) == len(nodes):
        return
    for name, node in lookups:
        padding = argument_of(node, "padding_idx")
        if type(padding) is int and padding >= 0:
            yield (
                f"row {padding} of {name.name}, its padding_idx, got no gradient from lookups; "
                "it is trained now, because it is a column of the output too"
            )
        if argument_of(node, "sparse"):
            yield (
                f"{name.name} had sparse gradients, which become dense; "
                "an optimizer for sparse ones, as SparseAdam, no longer fits"
            )
