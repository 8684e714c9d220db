"""Constants and long lines."""

import subprocess
import sys

import pytest

from tiesurgeon.mapping.torch_words import Name
from tiesurgeon.rooms.pytorch.code.formatting import fit, literal

LONG = [
    "self.conv = nn.Conv2d(" + ", ".join(f"some_argument_{n}={n}" for n in range(4)) + ")",
    "self.conv = nn.Conv2d(" + ", ".join(f"some_argument_{n}={n}" for n in range(9)) + ")",
    "x = function(first, other(" + ", ".join(f"argument_{n}" for n in range(9)) + "), last_one)",
    "return {" + ", ".join(f'"output_{n}": self.layer_{n}(x)' for n in range(5)) + "}",
    "def forward(self, " + ", ".join(f"input_{n}: Tensor" for n in range(8)) + ") -> Tensor:",
    "def forward(self, "
    + ", ".join(f"i_{n}: Tensor" for n in range(5))
    + ") -> tuple[Tensor, int]:",
    'def load(path: str | Path = Path(__file__).with_name("model.safetensors")) -> LongClassNames:',
]


@pytest.mark.parametrize("line", LONG)
def test_long_lines_break_as_ruff_breaks_them(line: str) -> None:
    body = "        pass\n" if line.startswith("def") else ""
    text = "class A:\n" + "\n".join(fit(line, 4)) + "\n" + body
    command = [sys.executable, "-m", "ruff", "format", "--line-length", "100", "-"]
    found = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert found.stdout == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (0.5, "0.5"),
        (float("-inf"), 'float("-inf")'),
        ("same", '"same"'),
        ('a "b" \\', '"a \\"b\\" \\\\"'),
        ((3, 2), "(3, 2)"),
        ((3,), "(3,)"),
        ([1.0, 2.0], "[1.0, 2.0]"),
        (slice(1, None), "1:"),
        (slice(None, None, 2), "::2"),
        (..., "..."),
        (None, "None"),
        (Name("torch.float64"), "torch.float64"),
        (Name("parts.squareplus"), "squareplus"),
    ],
)
def test_literal(value: object, text: str) -> None:
    assert literal(value) == text
