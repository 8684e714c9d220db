"""The command line says what it did, and every failure is one line and an exit status."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import tiesurgeon
from tiesurgeon import cli, errors
from tiesurgeon.outcome import MadeTie, Outcome, Proof

PROVED = Proof(reread=True, max_abs_diff=0.0, poke=True, step=True)
UNPROVED = Proof()
TIED = Outcome(
    input=Path("model.h5"),
    output=Path("model.tied.h5"),
    format="keras-h5",
    ties=(MadeTie("embedding", "dense", (1, 0), "tie"),),
    parameters=(2000, 1500),
    bytes=(8000, 6000),
    proof=PROVED,
    warnings=(),
    lines=(),
)


@dataclass
class Calls:
    """Stands for the operations: remembers how they were called, and does as told."""

    outcome: Outcome = TIED
    error: BaseException | None = None
    made: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    def named(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.made.append((name, args, kwargs))
            if self.error is not None:
                raise self.error
            return self.outcome

        return call


def replaced(monkeypatch: pytest.MonkeyPatch, name: str, **functions: Any) -> None:
    """A module of tiesurgeon with only these functions, as `from tiesurgeon import` finds it."""
    module = ModuleType(f"tiesurgeon.{name}")
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(tiesurgeon, name, module, raising=False)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    verbs = ("tie", "untie", "convert")
    replaced(monkeypatch, "operations", **{name: calls.named(name) for name in verbs})
    replaced(monkeypatch, "inspection", inspect_many=calls.named("inspect_many"))
    replaced(
        monkeypatch,
        "report",
        as_text=lambda found: "a table",
        as_json=lambda found: '{"schema": 1}',
        as_html=lambda found: "<html>é</html>",
    )
    return calls


@pytest.fixture(autouse=True)
def signals_restored() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def run(*args: str) -> Result:
    return CliRunner().invoke(cli.main, args, prog_name="tiesurgeon")


# --- what is called ---------------------------------------------------------------------------


def test_inspect_passes_on_what_was_asked(calls: Calls) -> None:
    result = run("inspect", "a.h5", "b.h5", "--no-values", "--config", "model.json")
    assert (result.exit_code, result.stdout) == (0, "a table\n")
    [(_, args, options)] = calls.made
    assert args == ((Path("a.h5"), Path("b.h5")),)
    assert options == {"values": False, "config": Path("model.json")}


def test_inspect_json_prints_one_document(calls: Calls) -> None:
    assert json.loads(run("inspect", "a.h5", "--json").stdout) == {"schema": 1}


def test_inspect_html_writes_a_page(calls: Calls, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = run("inspect", "a.h5", "--html", str(page))
    assert (result.exit_code, result.stdout) == (0, f"wrote {page}\n")
    assert page.read_text(encoding="utf-8") == "<html>é</html>"


def test_inspect_html_replaces_a_page_only_with_force(calls: Calls, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    result = run("inspect", "a.h5", "--html", str(page))
    assert result.exit_code == 1
    assert "exists; give --force or another output" in result.stderr
    assert (page.read_text(), calls.made) == ("mine", [])
    assert run("inspect", "a.h5", "--html", str(page), "--force").exit_code == 0
    assert page.read_text(encoding="utf-8") == "<html>é</html>"


def test_tie_passes_on_what_was_asked(calls: Calls) -> None:
    result = run(
        *("tie", "model.h5", "--pair", "embedding", "dense", "--pair", "a/b", "c"),
        *("-o", "out.keras", "--method", "mean", "--proof", "static", "--dry-run", "--force"),
        *("--config", "model.json"),
    )
    assert result.exit_code == 0
    [(name, args, options)] = calls.made
    assert (name, args) == ("tie", (Path("model.h5"), (("embedding", "dense"), ("a/b", "c"))))
    assert (
        options.items()
        >= {
            "duplicates": False,
            "output": Path("out.keras"),
            "method": "mean",
            "proof": "static",
            "dry_run": True,
            "force": True,
            "config": Path("model.json"),
            "trust_code": False,
            "example_inputs": None,
            "onnx_head": "gemm",
        }.items()
    )


def test_tie_duplicates_names_no_pair(calls: Calls) -> None:
    assert run("tie", "model.h5", "--duplicates").exit_code == 0
    [(_, args, options)] = calls.made
    assert args == (Path("model.h5"), ())
    assert options["duplicates"] is True
    assert options["proof"] == "full"


def test_convert_passes_on_what_was_asked(calls: Calls) -> None:
    result = run("convert", "model.h5", "--to", "torch", "-o", "out", "--proof", "static")
    assert result.exit_code == 0
    [(name, args, options)] = calls.made
    assert (name, args) == ("convert", (Path("model.h5"), "torch"))
    assert options == {
        "output": Path("out"),
        "proof": "static",
        "force": False,
        "config": None,
        "trust_code": False,
        "example_inputs": None,
        "opset": None,
        "onnx_head": "gemm",
    }


def test_convert_passes_on_what_other_frameworks_need(calls: Calls) -> None:
    result = run(
        *("convert", "model.pt", "--to", "onnx", "--trust-code", "--example-inputs", "x.npz"),
        *("--opset", "20", "--onnx-head", "activation"),
    )
    assert result.exit_code == 0
    [(_, _, options)] = calls.made
    assert (
        options.items()
        >= {
            "trust_code": True,
            "example_inputs": Path("x.npz"),
            "opset": 20,
            "onnx_head": "activation",
        }.items()
    )


def test_untie_passes_on_what_was_asked(calls: Calls) -> None:
    result = run("untie", "model.pt", "--pair", "embed", "decoder", "-o", "out.pt", "--trust-code")
    assert result.exit_code == 0
    [(name, args, options)] = calls.made
    assert (name, args) == ("untie", (Path("model.pt"), (("embed", "decoder"),)))
    assert options == {
        "output": Path("out.pt"),
        "proof": "full",
        "force": False,
        "config": None,
        "trust_code": True,
        "example_inputs": None,
    }


def test_what_was_untied_is_told(calls: Calls) -> None:
    calls.outcome = replace(TIED, ties=(), untied=("dense",), proof=Proof(True, 0.0))
    lines = run("untie", "model.h5").stdout.splitlines()
    assert lines[0] == "untied      dense"
    assert "proof       read back: each of these names has weights of its own" in lines
    assert json.loads(run("untie", "model.h5", "--json").stdout)["untied"] == ["dense"]


# --- what is printed --------------------------------------------------------------------------


def test_a_tie_is_told_with_its_proof(calls: Calls) -> None:
    calls.outcome = replace(TIED, proof=replace(PROVED, max_abs_diff=3.6954879e-7))
    assert run("tie", "model.h5", "--duplicates").stdout.splitlines() == [
        "tie         dense <- embedding  (transposed)",
        "parameters  2,000 -> 1,500  (-25.0%)",
        "bytes       8,000 -> 6,000  (-25.0%)",
        "proof       read back: each tie is one variable",
        "proof       outputs: largest difference 3.7e-07",
        "proof       poke: one changed row of the matrix shows at both ends",
        "proof       step: one training step moves both ends together",
        "wrote       model.tied.h5",
    ]


def test_a_proof_not_made_is_named(calls: Calls) -> None:
    calls.outcome = replace(
        TIED, proof=replace(UNPROVED, reread=True), warnings=("keras is not installed",)
    )
    result = run("tie", "model.h5", "--duplicates")
    assert "not proved  outputs, poke, step" in result.stdout
    assert result.stderr == "Warning: keras is not installed\n"


def test_without_a_tie_nothing_is_missing_from_the_proof(calls: Calls) -> None:
    calls.outcome = replace(TIED, ties=(), proof=replace(PROVED, poke=None, step=None))
    printed = run("convert", "model.h5", "--to", "keras").stdout
    assert "all weights are as they should be" in printed
    assert "not proved" not in printed


def test_nothing_to_do_says_that_no_file_was_written(calls: Calls) -> None:
    calls.outcome = replace(
        TIED, output=None, ties=(), proof=UNPROVED, lines=("nothing is stored twice",)
    )
    result = run("tie", "model.h5", "--duplicates")
    assert result.exit_code == 0
    assert result.stdout.startswith("nothing is stored twice\nno file was written\n")
    assert "prove" not in result.stdout


def test_json_is_the_documented_shape(calls: Calls) -> None:
    calls.outcome = replace(TIED, proof=replace(PROVED, step=None), warnings=("step not made",))
    result = run("tie", "model.h5", "--duplicates", "--json")
    assert result.stderr == ""
    assert json.loads(result.stdout) == {
        "schema": 1,
        "input": "model.h5",
        "output": "model.tied.h5",
        "format": "keras-h5",
        "ties": [{"source": "embedding", "target": "dense", "perm": [1, 0], "kind": "tie"}],
        "parameters": {"before": 2000, "after": 1500},
        "bytes": {"before": 8000, "after": 6000},
        "proof": {"reread": True, "max_abs_diff": 0.0, "poke": True, "step": None},
        "warnings": ["step not made"],
    }


def test_json_of_nothing_done_holds_nulls(calls: Calls) -> None:
    calls.outcome = replace(TIED, output=None, ties=(), proof=UNPROVED)
    document = json.loads(run("tie", "model.h5", "--duplicates", "--json").stdout)
    assert document["output"] is None
    assert set(document["proof"].values()) == {None}


# --- what fails -------------------------------------------------------------------------------


def subclasses(error: type[errors.TiesurgeonError]) -> list[type[errors.TiesurgeonError]]:
    return [error, *(deeper for kind in error.__subclasses__() for deeper in subclasses(kind))]


@pytest.mark.parametrize("kind", subclasses(errors.TiesurgeonError))
@pytest.mark.parametrize(
    "command", [("inspect",), ("tie", "--duplicates"), ("convert", "--to", "h5")]
)
def test_an_error_is_one_line_and_status_1(
    calls: Calls, kind: type[errors.TiesurgeonError], command: tuple[str, ...]
) -> None:
    calls.error = kind("what was found,\n  and what to do")
    result = run(*command, "model.h5")
    assert result.exit_code == 1
    assert (result.stdout, result.stderr) == ("", "Error: what was found, and what to do\n")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ZeroDivisionError("by\nzero"), "Error: unexpected ZeroDivisionError: by zero (please"),
        (RecursionError("too deep"), "Error: unexpected RecursionError: too deep (please"),
        (
            PermissionError(13, "Permission denied", "model.h5"),
            "Error: model.h5: Permission denied",
        ),
        (OSError("no file signature"), "Error: unexpected OSError: no file signature (please"),
        (MemoryError(), "Error: not enough memory for this model"),
    ],
)
def test_an_unexpected_error_is_one_line_too(calls: Calls, error: Exception, expected: str) -> None:
    calls.error = error
    result = run("inspect", "model.h5")
    assert result.exit_code == 1
    assert result.stderr.startswith(expected)
    assert len(result.stderr.splitlines()) == 1


def test_the_traceback_is_there_for_those_who_ask(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIESURGEON_DEBUG", "1")
    calls.error = ZeroDivisionError()
    assert isinstance(run("inspect", "model.h5").exception, ZeroDivisionError)


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("inspect",),
        ("tie", "model.h5"),
        ("tie", "model.h5", "--pair", "embedding"),
        ("tie", "model.h5", "--pair", "a", "b", "--duplicates"),
        ("tie", "model.h5", "--duplicates", "--method", "median"),
        ("convert", "model.h5"),
        ("convert", "model.h5", "--to", "word"),
        ("inspect", "model.h5", "--json", "--html", "page.html"),
        ("untangle", "model.h5"),
    ],
)
def test_wrong_usage_is_status_2(calls: Calls, args: tuple[str, ...]) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr or "requires 2 arguments" in result.stderr
    assert calls.made == []


def test_a_reader_that_stops_early_is_no_error(tmp_path: Path) -> None:
    program = (
        "import sys, types, tiesurgeon\n"
        "from tiesurgeon.cli import main\n"
        "inspection = sys.modules['tiesurgeon.inspection'] = types.ModuleType('inspection')\n"
        "report = sys.modules['tiesurgeon.report'] = types.ModuleType('report')\n"
        "inspection.inspect_many = lambda *args, **options: None\n"
        "report.as_text = lambda found: 'line\\n' * 100000\n"
        "main(['inspect', 'model.h5'])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without a signal")
def test_a_terminated_run_leaves_no_temporary_file(tmp_path: Path) -> None:
    program = (
        "import sys, time, types, pathlib, tiesurgeon\n"
        "from tiesurgeon import files\n"
        "from tiesurgeon.cli import main\n"
        "operations = sys.modules['tiesurgeon.operations'] = types.ModuleType('operations')\n"
        "def convert(*args, output, **options):\n"
        "    with files.writing_folder(output):\n"
        "        print('writing', flush=True)\n"
        "        time.sleep(60)\n"
        "operations.convert = convert\n"
        "main(['convert', 'model.h5', '--to', 'torch', '-o', sys.argv[1]])\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        assert len(list(tmp_path.iterdir())) == 1
        started = time.monotonic()
        process.terminate()
        assert process.wait() == 128 + signal.SIGTERM
    assert time.monotonic() - started < 30
    assert list(tmp_path.iterdir()) == []


# --- help -------------------------------------------------------------------------------------


def commands() -> dict[str, click.Command]:
    return dict(cli.main.commands)


def test_version() -> None:
    assert run("--version").stdout == f"tiesurgeon, version {tiesurgeon.__version__}\n"


def test_the_commands_are_those_that_work() -> None:
    assert set(commands()) == {"inspect", "tie", "untie", "convert", "verify"}


@pytest.mark.parametrize("name", sorted(commands()))
def test_help_says_what_every_option_does_and_gives_an_example(name: str) -> None:
    for parameter in commands()[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
    printed = run(name, "--help").stdout
    assert f"  tiesurgeon {name} " in printed.split("Example:")[1]


def test_no_text_is_wider_than_a_terminal() -> None:
    for name in ("", *commands()):
        args = [name, "--help"] if name else ["--help"]
        assert max(map(len, run(*args).stdout.splitlines())) <= 80
