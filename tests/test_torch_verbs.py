"""The verbs on PyTorch files of every format, as the command line calls them.

The proofs are static here; what PyTorch itself says of the same edits is in `rooms/pytorch/stock`.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from tests.rooms.pytorch.stock import files
from tests.rooms.pytorch.stock.own_lm import H, V
from tiesurgeon import operations
from tiesurgeon.errors import (
    OutputRefused,
    ProofFailed,
    ShapeMismatch,
    TieRefused,
    TiesurgeonError,
    UnknownName,
    UnsupportedFormat,
)
from tiesurgeon.inspection import inspect
from tiesurgeon.outcome_report import as_text
from tiesurgeon.report.text import print_inspection
from tiesurgeon.rooms.pytorch.check import check_written

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*_flat_weights.* were assigned during export:UserWarning"),
]

PAIR = ("embed.weight", "decoder.weight")
LINE = "your class  model.decoder.weight = model.embed.weight"
Make = Callable[[Path], Path]


def legacy(folder: Path) -> Path:
    torch.save(files.language_model(), folder / "m.pt", _use_new_zipfile_serialization=False)
    return folder / "m.pt"


def state_dict(folder: Path) -> Path:
    torch.save(files.numbers(), folder / "m.pt")
    return folder / "m.pt"


def checkpoint(folder: Path) -> Path:
    torch.save({"model": files.numbers(), "epoch": 3}, folder / "m.ckpt")
    return folder / "m.ckpt"


def safetensors(folder: Path) -> Path:
    save_file(files.numbers(), folder / "m.safetensors")
    return folder / "m.safetensors"


def huggingface(folder: Path) -> Path:
    path = folder / "m"
    path.mkdir()
    config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
    (path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    table = torch.randn(V, H)
    tensors = {"lm_head.weight": table, "transformer.wte.weight": table.clone()}
    save_file(tensors, path / "model.safetensors")
    return path


def module(folder: Path) -> Path:
    return files.save(files.language_model(), folder / "m.pt")


FORMATS: dict[str, Make] = {
    "torch-module": module,
    "torch-module, legacy": legacy,
    "torch-state-dict": state_dict,
    "torch-checkpoint": checkpoint,
    "torchscript": lambda folder: files.script(files.language_model(), folder / "m.pt"),
    "torch-export": lambda folder: files.export(files.language_model(), folder / "m.pt2"),
    "safetensors": safetensors,
    "huggingface": huggingface,
}


@pytest.fixture(params=FORMATS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file of every format with two equal matrices."""
    return FORMATS[request.param](tmp_path)


def pair_of(path: Path) -> tuple[str, str]:
    return ("transformer.wte.weight", "lm_head.weight") if path.is_dir() else PAIR


def tie(path: Path, *pairs: tuple[str, str], **options: Any) -> Any:
    return operations.tie(path, pairs or [pair_of(path)], proof="static", **options)


def untie(path: Path, *pairs: tuple[str, str]) -> Any:
    return operations.untie(path, pairs, proof="static")


def convert(path: Path, to: str, **options: Any) -> Any:
    return operations.convert(path, to, proof="static", **options)


def content(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.parent.rglob("*") if file.is_file()}


class TestEveryFormat:
    def test_tie(self, model: Path) -> None:
        before = content(model)
        outcome = tie(model)

        source, target = pair_of(model)
        assert [(made.source, made.target) for made in outcome.ties] == [(source, target)]
        assert outcome.parameters[0] - outcome.parameters[1] == V * H
        assert outcome.proof.reread
        again = inspect(outcome.output)
        assert again.format == outcome.format == inspect(model).format
        assert [(made.source, made.target) for made in again.ties] == [(source, target)]
        assert again.unique_parameters == outcome.parameters[1]
        assert before.items() <= content(model).items()

    def test_untie(self, model: Path) -> None:
        tied = tie(model)
        outcome = untie(tied.output)

        assert outcome.untied == (pair_of(model)[1],)
        assert outcome.parameters == tied.parameters[::-1]
        assert inspect(outcome.output).ties == ()

    def test_what_cannot_be_done_leaves_nothing_behind(self, model: Path) -> None:
        before = content(model)
        for action in (
            lambda: tie(model, (pair_of(model)[0], "nothing")),
            lambda: tie(model, pair_of(model), output=model),
            lambda: tie(model, pair_of(model), output=model.parent / "no" / "m"),
            lambda: tie(model, pair_of(model), output=model.with_name("m.keras")),
            lambda: untie(model, pair_of(model)),
            lambda: convert(model, "keras"),
        ):
            with pytest.raises(TiesurgeonError):
                action()
        assert content(model) == before
        assert [path.name for path in model.parent.iterdir()] == [model.name]


@pytest.mark.parametrize(
    ("pair", "error", "words"),
    [
        (("embed", "nothing"), UnknownName, "decoder.weight"),
        (("embed", "lstm"), UnknownName, "several matrices"),
        (("embed", "lstm.weight_ih_l0"), ShapeMismatch, r"\(12, 3\)"),
    ],
)
def test_a_pair_that_is_none(
    tmp_path: Path, pair: tuple[str, str], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        tie(module(tmp_path), pair)


@pytest.mark.parametrize("names", [("embed", "decoder"), ("decoder/weight", "embed/weight")])
def test_names_with_slashes_and_by_layer_in_any_order(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    [made] = tie(module(tmp_path), names).ties
    assert (made.source, made.target) == PAIR


def test_an_existing_output_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = module(tmp_path)
    tie(path)
    with pytest.raises(OutputRefused, match="--force"):
        tie(path)
    assert tie(path, force=True).proof.reread


def test_three_equal_matrices_become_one(tmp_path: Path) -> None:
    table = torch.randn(V, H)
    names = ("encoder.embed.weight", "decoder.embed.weight", "decoder.out.weight")
    torch.save({name: table.clone() for name in names}, tmp_path / "m.pt")
    outcome = operations.tie(tmp_path / "m.pt", duplicates=True, proof="static")

    assert outcome.parameters == (3 * V * H, V * H)
    assert {made.source for made in outcome.ties} == {names[0]}
    found = torch.load(tmp_path / "m.tied.pt", weights_only=True)
    assert len({tensor.data_ptr() for tensor in found.values()}) == 1


class TestWeightsAlone:
    """They say what is tied by what is stored once; the class makes the tie."""

    def test_the_line_that_the_class_needs_is_said(self, tmp_path: Path) -> None:
        outcome = tie(state_dict(tmp_path))
        assert LINE in outcome.lines
        assert "read back: what is tied is stored once" in as_text(outcome)

    def test_names_on_one_storage_are_counted_once(self, tmp_path: Path) -> None:
        numbers = files.numbers()
        numbers["decoder.weight"] = numbers["embed.weight"]
        torch.save(numbers, tmp_path / "m.pt")
        found = inspect(tmp_path / "m.pt")
        assert found.total_parameters - found.unique_parameters == V * H

    def test_the_embedding_keeps_its_numbers_whatever_the_order_of_the_file(
        self, tmp_path: Path
    ) -> None:
        tied = tie(safetensors(tmp_path)).output  # which lists the decoder first
        assert convert(tied, "state-dict").lines == (LINE,)
        assert untie(tied).untied == ("decoder.weight",)


# --- transposed ties --------------------------------------------------------------------------


def autoencoder(kind: str, folder: Path) -> Path:
    model = files.autoencoder()
    numbers = {name: value.contiguous() for name, value in model.state_dict().items()}
    if kind == "torch-state-dict":
        torch.save(numbers, folder / "m.pt")
        return folder / "m.pt"
    if kind == "safetensors":
        save_file(numbers, folder / "m.safetensors")
        return folder / "m.safetensors"
    if kind == "torch-export":
        program = torch.export.export(model, (torch.randn(2, 7),))
        torch.export.save(program, folder / "m.pt2")
        return folder / "m.pt2"
    save = files.script if kind == "torchscript" else files.save
    return save(model, folder / "m.pt")


@pytest.mark.parametrize("kind", ["torch-module", "torch-state-dict", "torch-export"])
def test_a_matrix_can_be_another_one_transposed(tmp_path: Path, kind: str) -> None:
    path = autoencoder(kind, tmp_path)
    outcome = tie(path, ("0", "2"))

    assert [made.perm for made in outcome.ties] == [(1, 0)]
    assert outcome.parameters[0] - outcome.parameters[1] == 7 * H
    assert inspect(outcome.output).unique_parameters == outcome.parameters[1]
    again = untie(outcome.output)
    assert again.parameters == outcome.parameters[::-1]


@pytest.mark.parametrize("kind", ["safetensors", "torchscript"])
def test_where_a_format_cannot_say_so_another_is_named(tmp_path: Path, kind: str) -> None:
    path = autoencoder(kind, tmp_path)
    with pytest.raises(TieRefused, match=r"2\.weight would be 0\.weight transposed.*\.pt2"):
        tie(path, ("0", "2"))

    page = Console(file=io.StringIO(), width=200)
    print_inspection(page, inspect(path))
    shown = page.file.getvalue()  # type: ignore[attr-defined]
    assert "tiesurgeon tie" not in shown
    assert "can say that a matrix is another one transposed" in shown


def test_an_encoder_owns_the_matrix_wherever_the_file_has_it(tmp_path: Path) -> None:
    weight = torch.randn(3, 7)
    save_file(
        {"decoder.weight": weight.t().contiguous(), "encoder.weight": weight},
        tmp_path / "m.safetensors",
    )
    with pytest.raises(TieRefused, match=r"decoder\.weight would be encoder\.weight transposed"):
        tie(tmp_path / "m.safetensors", ("encoder", "decoder"))


# --- convert ----------------------------------------------------------------------------------


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    return files.save(files.tied(files.language_model()), tmp_path / "m.pt")


@pytest.mark.parametrize("to", ["safetensors", "state-dict"])
def test_a_tie_goes_along_and_the_class_is_told(tied: Path, to: str) -> None:
    outcome = convert(tied, to)

    assert outcome.lines == (LINE,)
    found = inspect(outcome.output)
    assert [(made.source, made.target) for made in found.ties] == [PAIR]
    assert found.unique_parameters == outcome.parameters[1]


def test_the_line_is_stored_in_a_state_dict(tied: Path) -> None:
    out = convert(tied, "state-dict").output
    reader = torch._C.PyTorchFileReader(str(out))
    note = json.loads(reader.get_record("extra/tiesurgeon.json"))
    assert note["code"] == [LINE.partition("  ")[2]]


def test_the_line_is_stored_in_safetensors(tied: Path) -> None:
    out = convert(tied, "safetensors").output
    with safe_open(out, "pt") as file:
        note = json.loads(file.metadata()["tiesurgeon"])
    assert note["code"] == [LINE.partition("  ")[2]]


@pytest.mark.parametrize("to", ["safetensors", "state-dict"])
def test_two_parameters_on_one_storage_are_not_tied_on_the_way(tmp_path: Path, to: str) -> None:
    path = files.save(files.aliased(files.language_model()), tmp_path / "m.pt")
    outcome = convert(path, to)

    assert outcome.ties == ()
    assert outcome.lines == ()
    assert inspect(outcome.output).ties == ()
    assert inspect(outcome.output).unique_parameters == inspect(path).unique_parameters


def test_a_transposed_tie_is_not_lost_in_silence(tmp_path: Path) -> None:
    path = files.save(files.transposed(files.autoencoder()), tmp_path / "m.pt")
    with pytest.raises(UnsupportedFormat, match=r"2\.weight is 0\.weight transposed"):
        convert(path, "safetensors")

    [line] = convert(path, "state-dict").lines
    assert "F.linear(x, model[0].weight.t(), model[2].bias)" in line


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("torch-module", "--trust-code"),
        ("torch-state-dict", "holds weights without a module"),
        ("torch-checkpoint", "holds weights without a module"),
        ("torchscript", "the module that it was made from"),
        ("safetensors", "holds weights without a module"),
        ("torch-export", "is an exported program already"),
    ],
)
def test_what_cannot_be_exported_is_told_what_to_do(tmp_path: Path, kind: str, words: str) -> None:
    path = FORMATS[kind](tmp_path)
    output = tmp_path / "out.pt2"
    with pytest.raises(UnsupportedFormat, match=words):
        convert(path, "pt2", output=output)
    assert not output.exists()


# --- what is wrapped --------------------------------------------------------------------------


def test_a_compiled_module_is_tied_as_the_module_in_it(tmp_path: Path) -> None:
    path = files.save(torch.compile(files.language_model()), tmp_path / "m.pt")
    outcome = tie(path, ("embed", "decoder"))

    assert outcome.ties[0].target == "_orig_mod.decoder.weight"
    found = torch.load(outcome.output, weights_only=False)._orig_mod
    assert found.decoder.weight is found.embed.weight


def test_a_data_parallel_module(tmp_path: Path) -> None:
    path = files.save(nn.DataParallel(files.language_model()), tmp_path / "m.pt")
    found = torch.load(tie(path, ("embed", "decoder")).output, weights_only=False).module
    assert found.decoder.weight is found.embed.weight


def test_a_module_in_a_checkpoint_must_be_tied_not_only_stored_once(tmp_path: Path) -> None:
    def held(name: str, model: nn.Module) -> Path:
        torch.save({"net": model, "epoch": 3}, tmp_path / name)
        return tmp_path / name

    meant = inspect(held("tied.pt", files.tied(files.language_model())))
    aliased = held("aliased.pt", files.aliased(files.language_model()))
    assert meant.format == "torch-checkpoint"
    check_written(meant.graph, tmp_path / "tied.pt", meant.format)
    with pytest.raises(ProofFailed, match="are tied otherwise"):
        check_written(meant.graph, aliased, meant.format)


def test_the_state_of_an_optimizer_is_no_parameter_of_a_layer(tmp_path: Path) -> None:
    model = nn.Linear(H, V)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, H)).sum().backward()
    optimizer.step()
    held = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(held, tmp_path / "m.ckpt")

    page = Console(file=io.StringIO(), width=200)
    print_inspection(page, inspect(tmp_path / "m.ckpt"))
    lines = page.file.getvalue().splitlines()  # type: ignore[attr-defined]
    [moments] = [line for line in lines if "optimizer.state.0" in line]
    assert moments.split() == ["optimizer.state.0", "step", "scalar"]
