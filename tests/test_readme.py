"""What the README shows is what happens.

`console` blocks are typed, line by line, in a folder that holds the sample models; `python`
blocks follow in the same folder. `...` stands for anything, as in a doctest. To write what the
commands print today into the README:  python tests/test_readme.py
"""

import doctest
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"^\$ ", re.M)


def environment() -> dict[str, str]:
    """A terminal of one width, and the `tiesurgeon` and `python` of this environment."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
    return {**os.environ, **quiet, "PATH": programs, "COLUMNS": "100", "NO_COLOR": "1"}


def printed(command: list[str] | str, folder: str) -> str:
    """What a terminal would show."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        shell=isinstance(command, str),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return re.sub(r"[ \t]+$", "", done.stdout, flags=re.M)


def same(expected: str, got: str) -> bool:
    """As a doctest sees it; rounding errors differ by machine."""
    expected, got = (re.sub(r"\b\d(\.\d+)?e-0[678]\b", "1e-07", text) for text in (expected, got))
    return doctest.OutputChecker().check_output(expected, got, doctest.ELLIPSIS)


def rerun(text: str) -> str:
    """The README with what its commands print now, where that is not what it says."""
    with TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "sample_models", Path(folder) / "sample_models")

        def block(found: re.Match[str]) -> str:
            language, body = found.groups()
            if language == "python":
                errors = printed([sys.executable, "-W", "error", "-c", body], folder)
                return found[0] if not errors else f"```python\n{body}# {errors}```"
            steps = []
            for step in COMMAND.split(body)[1:]:
                command, _, expected = step.partition("\n")
                gap = "\n" if expected.endswith("\n\n") else ""  # between two commands
                got = printed(command, folder)
                steps.append(f"$ {command}\n{expected if same(expected, got + gap) else got + gap}")
            return f"```console\n{''.join(steps)}```"

        return BLOCK.sub(block, text)


def test_the_readme_shows_what_happens() -> None:
    pytest.importorskip("keras")
    pytest.importorskip("torch")
    text = README.read_text(encoding="utf-8")
    assert len(BLOCK.findall(text)) >= 4
    assert rerun(text).splitlines() == text.splitlines()


if __name__ == "__main__":
    README.write_text(rerun(README.read_text(encoding="utf-8")), encoding="utf-8")
