"""Bad input at the command line: one line, status 1, the input untouched, nothing half-written."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from tiesurgeon.cli import main

COMMANDS = {
    "inspect": ("inspect", "MODEL"),
    "tie": ("tie", "MODEL", "--duplicates", "--proof", "static"),
    "convert to torch": ("convert", "MODEL", "--to", "torch", "--proof", "static"),
    "convert to keras": ("convert", "MODEL", "--to", "keras", "--proof", "static"),
}


def refusal(*args: str | Path) -> str:
    """The one line on stderr of a command that must fail, without the name of a file."""
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exit_code == 1, result.output
    [line] = result.stderr.splitlines()
    assert result.stdout == ""
    assert line.startswith("Error: ")
    assert "unexpected" not in line
    return line


def cut(sample: str) -> Callable[[Path, Path], None]:
    def make(samples: Path, model: Path) -> None:
        data = (samples / sample).read_bytes()
        model.write_bytes(data[: len(data) // 2])

    return make


BAD: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "missing.h5": (lambda samples, model: None, "no such file"),
    "empty.h5": (lambda samples, model: model.touch(), "empty"),
    "truncated.h5": (cut("char_lm.h5"), "truncated"),
    "truncated.keras": (cut("char_lm.keras"), "damaged"),
    "text.h5": (lambda samples, model: model.write_text("hello"), "not a model"),
    "folder.keras": (lambda samples, model: model.mkdir(), "folder"),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_model(
    samples: Path, tmp_path: Path, name: str, command: tuple[str, ...]
) -> None:
    make, expected = BAD[name]
    model = tmp_path / name
    make(samples, model)
    before = sorted(tmp_path.iterdir())
    line = refusal(*(model if word == "MODEL" else word for word in command))
    assert expected in line
    assert str(model) in line
    assert sorted(tmp_path.iterdir()) == before


PAIR = ("--pair", "embedding", "dense")
REFUSED = {
    "no such name": (("--pair", "embeding", "dense"), "embedding"),
    "no such variable": (("--pair", "embedding/kernel", "dense"), "embeddings"),
    "shapes that do not fit": (("--pair", "embedding", "lstm/recurrent_kernel"), "64"),
    "itself": (("--pair", "embedding", "embedding"), "embedding"),
    "different values": (PAIR, "--method"),
    "output is the input": (("--duplicates", "-o", "MODEL"), "is the input"),
    "output exists": (("--duplicates", "-o", "there.h5"), "exists; give --force"),
    "output nowhere": (("--duplicates", "-o", "no/folder/out.h5"), "no folder"),
    "output of another kind": ((*PAIR, "--method", "mean", "-o", "out.pt"), ".keras"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_tie_that_cannot_be(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    model = Path("model.h5")
    shutil.copy(samples / "char_lm.h5", model)
    Path("there.h5").write_text("mine")
    options, expected = REFUSED[name]
    given = [str(model) if word == "MODEL" else word for word in options]
    assert expected in refusal("tie", model, *given)
    assert sorted(path.name for path in Path().iterdir()) == ["model.h5", "there.h5"]
    assert model.read_bytes() == (samples / "char_lm.h5").read_bytes()
    assert Path("there.h5").read_text() == "mine"


@pytest.mark.parametrize("sample", ["char_lm.h5", "char_lm.keras", "keras2_lm.h5"])
def test_damaged_bytes_are_an_error_or_none_at_all(
    samples: Path, tmp_path: Path, sample: str
) -> None:
    whole = (samples / sample).read_bytes()
    model = tmp_path / sample
    draw = random.Random(20)
    # Where a file says what it holds: its first bytes, and a zip's last.
    places = [*range(8192), *range(len(whole) - 4096, len(whole))]
    for _ in range(25):
        damaged = bytearray(whole)
        for place in draw.sample(places, draw.choice((1, 4, 32))):
            damaged[place] = draw.randrange(256)
        model.write_bytes(damaged)
        result = CliRunner().invoke(main, ["inspect", str(model)])
        if result.exit_code != 0:
            refusal("inspect", model)
