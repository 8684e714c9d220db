"""The whole is as DESIGN says: light to import, one-way arrows, everything documented."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import tiesurgeon
from tiesurgeon import cli

PACKAGE = Path(tiesurgeon.__file__).parent

# Run by a framework in a process of their own, or copied into the models that are written.
FOR_FRAMEWORKS = (
    "rooms.keras.proof_script",
    "rooms.savedmodel.export_script",
    "rooms.savedmodel.proof_script",
    "rooms.onnx.proof_script",
    "rooms.pytorch.code.proof_script",
    "rooms.pytorch.code.parts",
    "rooms.onnx.poke_script",
    "rooms.pytorch.onnx.export_script",
    "rooms.pytorch.onnx.poking",
    "rooms.pytorch.onnx.recurrent",
    "rooms.pytorch.onnx.tidying",
    "rooms.pytorch.stock",
)

# A module may import what stands in a row above its own, or beside it in its own room.
ROWS: tuple[tuple[str, ...], ...] = (
    ("errors", "outcome"),
    ("graph", "files", "subprocesses", "damage"),
    ("edits", "rewiring", "names", "comparison", "running"),
    ("mapping", "model", "orientation", "naming", "examples"),
    ("pairing", "fit", "find", "formats"),
    ("rooms.keras", "rooms.onnx", "rooms.pytorch"),
    ("rooms.savedmodel",),  # Keras models in TensorFlow's container
    ("inspection", "crossing", "planning"),
    ("verification",),
    ("conversion", "verification_report"),
    ("operations", "report", "outcome_report"),
    ("cli", "__init__"),
    ("__main__",),
)


def modules() -> Iterator[tuple[str, Path]]:
    """Name (without the package) and file of every module."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        yield name, path


def importable() -> list[str]:
    return [
        "tiesurgeon" if name == "__init__" else f"tiesurgeon.{name}"
        for name, _ in modules()
        if not name.startswith(FOR_FRAMEWORKS) and name != "__main__"
    ]


def imported_by(path: Path) -> Iterator[str]:
    """Names of tiesurgeon's modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            head, _, rest = name.partition(".")
            if head == "tiesurgeon" and not rest.startswith("__"):  # __version__ is no module
                yield rest


def room(name: str) -> str:
    """The module or package that ROWS speaks of."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "rooms" else parts[0]


def test_every_module_imports_alone_and_without_a_framework(python_without_frameworks) -> None:
    result = python_without_frameworks(
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    for loaded in [m for m in sys.modules if m.startswith('tiesurgeon')]:\n"
        "        del sys.modules[loaded]\n"
        "    importlib.import_module(name)\n",
        *importable(),
    )
    assert result.returncode == 0, result.stderr[-1000:]


def test_arrows_point_one_way() -> None:
    rank = {member: row for row, members in enumerate(ROWS) for member in members}
    for name, path in modules():
        here = room(name)
        if here == "rooms":  # the empty package around them
            continue
        assert here in rank, f"ROWS in this test does not say where {here} stands"
        for other in map(room, imported_by(path)):
            assert other in rank, f"{name} imports {other}, which no row of ROWS names"
            assert other == here or rank[other] < rank[here], f"{name} imports {other}"


@pytest.mark.parametrize("command", ["", *cli.main.commands])
def test_help_needs_nothing_heavy(python_without, command: str) -> None:
    heavy = ("numpy", "h5py", "rich", "ml_dtypes", "safetensors", "onnx", "tensorflow", "torch")
    code = "import sys; from tiesurgeon.cli import main; main(sys.argv[1:])"
    result = python_without(heavy, code, *command.split(), "--help")
    assert result.returncode == 0
    assert result.stdout.startswith("Usage: ")


def test_the_public_names_are_there() -> None:
    assert tiesurgeon.__all__ == sorted(tiesurgeon.__all__)
    assert dir(tiesurgeon) == tiesurgeon.__all__
    for name in tiesurgeon.__all__:
        assert getattr(tiesurgeon, name)
    with pytest.raises(AttributeError, match="no attribute 'untangle'"):
        _ = tiesurgeon.untangle


def test_every_command_and_option_is_in_the_readme(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    for name, command in cli.main.commands.items():
        [section] = re.findall(rf"^### `tiesurgeon {name} .*?(?=^##)", text, re.M | re.S)
        options = [option for option in command.params if isinstance(option, click.Option)]
        for option in options:
            assert f"`{max(option.opts, key=len)}" in section, f"{name} {option.opts}"
        documented = set(re.findall(r"^- .*?`(--[\w-]+)", section, re.M))
        assert documented == {max(option.opts, key=len) for option in options}


def test_the_changelog_has_this_version(root: Path) -> None:
    assert f"## {tiesurgeon.__version__}" in (root / "CHANGELOG.md").read_text(encoding="utf-8")
