"""The source text of the parts that a model needs, taken from their files without importing."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PARTS = Path(__file__).with_name("parts")


@dataclass(frozen=True)
class Part:
    """One class or function, with the imports and the other parts that it uses."""

    name: str
    text: str
    is_class: bool
    parts: tuple[str, ...]
    imports: tuple[str, ...]


def needed(names: Iterable[str]) -> list[Part]:
    """Those parts and the parts that they use, each after what it uses."""
    known, ordered = _all_parts(), dict[str, Part]()

    def visit(name: str) -> None:
        if name in ordered:
            return
        for other in known[name].parts:
            visit(other)
        ordered[name] = known[name]

    for name in sorted(names):
        visit(name)
    return list(ordered.values())


def part_names() -> frozenset[str]:
    """The names of all parts and of what they import."""
    known = _all_parts().values()
    imported = {line.split()[-1] for part in known for line in part.imports}
    return frozenset({part.name for part in known} | imported)


@cache
def _all_parts() -> dict[str, Part]:
    trees = {path: ast.parse(path.read_text("utf-8")) for path in sorted(PARTS.glob("*.py"))}
    definitions = {
        node.name: (path, node)
        for path, tree in trees.items()
        for node in tree.body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef))
    }
    imports = {path: _imports(tree) for path, tree in trees.items()}
    return {
        name: _part(name, node, path.read_text("utf-8"), imports[path], set(definitions))
        for name, (path, node) in definitions.items()
    }


def _part(
    name: str,
    node: ast.ClassDef | ast.FunctionDef,
    source: str,
    imports: dict[str, str],
    others: set[str],
) -> Part:
    used = {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}
    text = ast.get_source_segment(source, node) or ""
    return Part(
        name,
        text,
        isinstance(node, ast.ClassDef),
        tuple(sorted(used & others - {name})),
        tuple(sorted({imports[item] for item in used & set(imports)})),
    )


def _imports(tree: ast.Module) -> dict[str, str]:
    """What each imported name needs: one import statement of that name alone."""
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                spelled = alias.name if alias.asname is None else f"{alias.name} as {alias.asname}"
                prefix = f"from {node.module} " if isinstance(node, ast.ImportFrom) else ""
                bound = alias.asname or alias.name.split(".")[0]
                found[bound] = f"{prefix}import {spelled}"
    return found
