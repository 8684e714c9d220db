"""The command line: parse, call, print; an error becomes one line and an exit status only here.

Nothing heavier than Click is imported before a command runs, so that `--help` is instant.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from tiesurgeon import __version__
from tiesurgeon.errors import TiesurgeonError

if TYPE_CHECKING:
    from tiesurgeon.outcome import Outcome

METHODS = ("keep-source", "keep-target", "mean")
FORMATS = ("torch", "keras", "h5", "savedmodel", "onnx", "pt2", "safetensors", "state-dict")
REPORT_HERE = "please report it, with the command and what TIESURGEON_DEBUG=1 prints"


class Program(click.Group):
    """A group whose every failure is one line on stderr and exit status 1, never a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of use, not of the alphabet."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; Click shows the errors it knows, and exits with their status."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if os.environ.get("TIESURGEON_DEBUG") == "1":
                raise
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # `tiesurgeon inspect ... | head`: Click ends quietly
            raise click.ClickException(message(error)) from error


def message(error: Exception) -> str:
    """What a user needs to know of an error, on one line."""
    if isinstance(error, TiesurgeonError):
        text = str(error)
    elif isinstance(error, MemoryError):
        text = "not enough memory for this model"
    elif isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror}"
    else:
        text = f"unexpected {type(error).__name__}: {error} ({REPORT_HERE})"
    return " ".join(text.split())


def _start() -> None:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a layer's name must not fail on an ASCII terminal
            stream.reconfigure(errors="replace")
    with suppress(ValueError):  # not the main thread: nobody can send it a signal
        # Ends as Ctrl-C does, so that temporary files go.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


model_argument = click.argument("model", type=click.Path(path_type=Path))
output_option = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where to write. [default: beside MODEL]",
)
proof_option = click.option(
    "--proof",
    type=click.Choice(["static", "full"]),
    default="full",
    show_default=True,
    help="static: read the result again, no framework needed. "
    "full: also run it in its framework, where that is installed.",
)
force_option = click.option("--force", is_flag=True, help="Replace an existing output.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="MODEL.json",
    help="The architecture (model.to_json()), where MODEL holds weights only.",
)
trust_option = click.option(
    "--trust-code",
    is_flag=True,
    help="Import and run the Python classes that a pickle names, where a framework must open it.",
)
inputs_option = click.option(
    "--example-inputs",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Arrays to call a PyTorch or ONNX model with, where inputs cannot be guessed.",
)
head_option = click.option(
    "--onnx-head",
    type=click.Choice(["gemm", "activation"]),
    default="gemm",
    show_default=True,
    help="How a tied output layer is written in ONNX. gemm: quickest. "
    "activation: ONNX Runtime keeps one copy of the matrix in memory.",
)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tiesurgeon")
def main() -> None:
    """Find weights of a trained model that could be one, tie them, and keep the tie.

    A tie is one variable with two uses, mostly an embedding and the output layer over the same
    vocabulary: fewer parameters, a smaller file, and training moves both together.

    \b
    Start by looking; nothing is changed, and no code of the model is run:
      tiesurgeon inspect model.h5
    """
    _start()


@main.command()
@click.argument(
    "models", metavar="MODEL...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--no-values", is_flag=True, help="Do not compare weights: structure only, quicker.")
@json_option
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a page to FILE instead."
)
@force_option
@config_option
def inspect(
    models: tuple[Path, ...],
    no_values: bool,
    as_json: bool,
    html: Path | None,
    force: bool,
    config: Path | None,
) -> None:
    """Show what MODEL holds, what is tied, and what could be.

    Several files are also compared with each other. Reads the file only: no framework is
    imported, and no code of the model is run. Ends with the command that ties the best pair.

    \b
    Example:
      tiesurgeon inspect model.h5
      tiesurgeon inspect weights.h5 --config model.json
    """
    if as_json and html:
        raise click.UsageError("--json and --html exclude each other.")
    # Comparing multiplies nothing, and starting numpy's threads takes a fifth of the whole time.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from tiesurgeon import inspection, report

    if html is None:
        found = inspection.inspect_many(models, values=not no_values, config=config)
        click.echo(report.as_json(found) if as_json else report.as_text(found))
        return
    from tiesurgeon import files

    files.refuse_output(html, force=force, inputs=models)
    found = inspection.inspect_many(models, values=not no_values, config=config)
    with files.writing(html, force=force, inputs=models) as page:
        page.write_text(report.as_html(found), encoding="utf-8")
    click.echo(f"wrote {html}")


@main.command()
@model_argument
@click.option(
    "--pair",
    "pairs",
    nargs=2,
    multiple=True,
    metavar="SOURCE TARGET",
    help="Two layers or variables, named as `inspect` prints them. May be repeated.",
)
@click.option("--duplicates", is_flag=True, help="Tie every pair of matrices equal bit by bit.")
@output_option
@click.option(
    "--method",
    type=click.Choice(METHODS),
    help="Which values to keep where they differ. [default: refuse]",
)
@proof_option
@click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@force_option
@json_option
@config_option
@trust_option
@inputs_option
@head_option
def tie(
    model: Path,
    pairs: tuple[tuple[str, str], ...],
    duplicates: bool,
    output: Path | None,
    method: str | None,
    proof: Literal["static", "full"],
    dry_run: bool,
    force: bool,
    as_json: bool,
    config: Path | None,
    trust_code: bool,
    example_inputs: Path | None,
    onnx_head: Literal["gemm", "activation"],
) -> None:
    """Make two weights of MODEL one variable, and prove it.

    The result is written to a new file; MODEL itself is never changed. Weights that differ are
    tied only with --method, since that changes what the model computes; without it their
    difference is printed.

    \b
    Example:
      tiesurgeon tie model.h5 --pair embedding dense
      tiesurgeon tie model.h5 --duplicates -o tied.keras
    """
    from tiesurgeon import operations

    if bool(pairs) == duplicates:
        raise click.UsageError("Give either --pair SOURCE TARGET or --duplicates.")
    _show(
        operations.tie(
            model,
            pairs,
            duplicates=duplicates,
            output=output,
            method=method,
            proof=proof,
            dry_run=dry_run,
            force=force,
            config=config,
            trust_code=trust_code,
            example_inputs=example_inputs,
            onnx_head=onnx_head,
        ),
        as_json,
    )


@main.command()
@model_argument
@click.option(
    "--pair",
    "pairs",
    nargs=2,
    multiple=True,
    metavar="SOURCE TARGET",
    help="A tie to undo: TARGET gets its own copy. May be repeated. [default: all ties]",
)
@output_option
@proof_option
@force_option
@json_option
@config_option
@trust_option
@inputs_option
def untie(
    model: Path,
    pairs: tuple[tuple[str, str], ...],
    output: Path | None,
    proof: Literal["static", "full"],
    force: bool,
    as_json: bool,
    config: Path | None,
    trust_code: bool,
    example_inputs: Path | None,
) -> None:
    """Give tied weights of MODEL copies of their own again.

    The copies are equal, so the model computes the same; from then on they train apart. A layer
    that is called several times stays one layer.

    \b
    Example:
      tiesurgeon untie model.tied.h5
      tiesurgeon untie model.tied.pt --pair embed decoder -o apart.pt
    """
    from tiesurgeon import operations

    _show(
        operations.untie(
            model,
            pairs,
            output=output,
            proof=proof,
            force=force,
            config=config,
            trust_code=trust_code,
            example_inputs=example_inputs,
        ),
        as_json,
    )


@main.command()
@model_argument
@click.option("--to", required=True, type=click.Choice(FORMATS), help="The format to write.")
@output_option
@proof_option
@force_option
@json_option
@config_option
@trust_option
@inputs_option
@click.option("--opset", type=int, help="The version of ONNX's operators. [default: 18]")
@head_option
def convert(
    model: Path,
    to: str,
    output: Path | None,
    proof: Literal["static", "full"],
    force: bool,
    as_json: bool,
    config: Path | None,
    trust_code: bool,
    example_inputs: Path | None,
    opset: int | None,
    onnx_head: Literal["gemm", "activation"],
) -> None:
    """Write MODEL in another format, its ties kept and none added.

    \b
    From Keras:
      torch        a folder with a readable model.py and model.safetensors
      keras        a .keras file of today's Keras
      h5           an .h5 file that today's Keras opens, however old MODEL is
      savedmodel   a folder for TensorFlow, each variable stored once
      onnx, pt2    as below, through PyTorch

    \b
    From PyTorch:
      pt2          an exported program (torch.export), which needs no class
      onnx         an ONNX model, which holds a tied matrix once
      safetensors  the weights in one .safetensors file
      state-dict   the weights as torch.load(weights_only=True) gives them

    \b
    Example:
      tiesurgeon convert model.h5 --to torch -o my_model
      tiesurgeon convert checkpoint.pt --to safetensors
    """
    from tiesurgeon import operations

    if to != "onnx" and (opset is not None or onnx_head != "gemm"):
        option = "--opset" if opset is not None else "--onnx-head"
        raise click.UsageError(f"{option} is for --to onnx, and this is --to {to}.")
    _show(
        operations.convert(
            model,
            to,
            output=output,
            proof=proof,
            force=force,
            config=config,
            trust_code=trust_code,
            example_inputs=example_inputs,
            opset=opset,
            onnx_head=onnx_head,
        ),
        as_json,
    )


@main.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option(
    "--inputs",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Arrays to call both models with. [default: made from what the files say, seeded]",
)
@click.option(
    "--atol",
    type=click.FloatRange(min=0),
    default=1e-4,
    show_default=True,
    help="The largest absolute difference that counts as equal.",
)
@json_option
@trust_option
def verify(
    a: Path, b: Path, inputs: Path | None, atol: float, as_json: bool, trust_code: bool
) -> None:
    """Run models A and B on the same inputs, and compare their outputs.

    They may be of any two formats; each runs in a process of its own, by its own framework.
    Two files of weights alone are compared tensor by tensor. Exit status 1 if they differ by
    more than --atol.

    \b
    Example:
      tiesurgeon verify model.h5 model.onnx
      tiesurgeon verify model.h5 model_torch --trust-code --atol 1e-5
    """
    from tiesurgeon import verification, verification_report

    found = verification.verify(a, b, inputs=inputs, atol=atol, trust_code=trust_code)
    if as_json:
        click.echo(verification_report.as_json(found))
    else:
        click.echo(verification_report.as_text(found))
        for warning in found.warnings:
            click.echo(f"Warning: {warning}", err=True)
    if not found.equal:
        raise click.ClickException(verification_report.failure(found))


def _show(outcome: Outcome, as_json: bool) -> None:
    from tiesurgeon import outcome_report

    if as_json:
        click.echo(outcome_report.as_json(outcome))
        return
    click.echo(outcome_report.as_text(outcome))
    for warning in outcome.warnings:
        click.echo(f"Warning: {warning}", err=True)
