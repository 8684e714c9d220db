"""Programs that PyTorch exported, read without it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.rooms.pytorch.exported import models
from tests.rooms.pytorch.exported.editing import view
from tests.rooms.pytorch.exported.models import seeded
from tiesurgeon import find
from tiesurgeon.find.flow import unfold
from tiesurgeon.rooms.pytorch.check import tensors
from tiesurgeon.rooms.pytorch.exported import read_exported

ALL = {
    "lm": models.Lm,
    "auto": models.Autoencoder,
    "core": models.Autoencoder,
    "gpt": models.Gpt,
    "conv": models.Conv,
    "functions": models.Functions,
    "three": models.Three,
}


@pytest.mark.parametrize("name", ALL)
def test_every_tensor_has_its_name_shape_and_numbers(exports: Path, name: str) -> None:
    found = tensors(read_exported(exports / f"{name}.pt2").graph)
    model = seeded(ALL[name])
    for key, tensor in model.state_dict().items():
        if "num_batches" not in key and "running" not in key:
            assert np.array_equal(found[key].load(), tensor.numpy()), key
    own = {held.variable.name for held in found.values() if held.variable.kind == "weight"}
    assert own == {key for key, _ in model.named_parameters()}


def test_modules_are_layers_with_their_classes_in_order(exports: Path) -> None:
    graph = read_exported(exports / "lm.pt2").graph
    assert [(layer.name, layer.op) for layer in graph.layers] == [
        ("ids", "InputLayer"),
        ("embed", "Embedding"),
        ("lstm", "LSTM"),
        ("decoder", "Linear"),
    ]


@pytest.mark.parametrize("name", ["auto", "core"])
def test_a_decomposed_layer_is_still_one_call(exports: Path, name: str) -> None:
    graph = read_exported(exports / f"{name}.pt2").graph
    assert [node.path for node in unfold(graph).nodes] == ["x", "encoder", "relu", "decoder"]


def test_a_layer_called_twice_is_two_calls(exports: Path) -> None:
    graph = read_exported(exports / "functions.pt2").graph
    assert len(graph.calls_of("inner")) == 2


def test_sizes_that_may_vary_have_no_number(exports: Path) -> None:
    graph = read_exported(exports / "gpt.pt2").graph
    assert graph.layer("ids").config["shape"] == (None, None)


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("lm", ("embed", "decoder", None)),
        ("half", ("embed", "decoder", None)),
        ("gpt", ("wte", "head", None)),
        ("auto", ("encoder", "decoder", (1, 0))),
        ("core", ("encoder", "decoder", (1, 0))),
    ],
)
def test_the_graph_shows_what_could_be_one(exports: Path, name: str, pair: object) -> None:
    found = find.candidates(read_exported(exports / f"{name}.pt2").graph)
    assert pair in [(c.source, c.target, c.perm) for c in found]


def test_buffers_and_constants_are_not_weights(exports: Path) -> None:
    graph = read_exported(exports / "gpt.pt2").graph
    kinds = {view(graph, name).variable.kind for name in ("h.0.mask", "h.0.scale", "gain")}
    assert kinds == {"buffer"}


def test_bfloat16_keeps_its_bits(exports: Path) -> None:
    array = view(read_exported(exports / "half.pt2").graph, "embed.weight").load()
    expected = seeded(models.Lm).bfloat16().embed.weight.detach().view(torch.int16).numpy()
    assert np.array_equal(array.view(np.int16), expected)


def test_two_names_on_the_same_bytes_are_an_alias(exports: Path) -> None:
    found = read_exported(exports / "native.pt2")
    [tie] = find.ties(found.graph)
    assert (tie.source, tie.target, tie.kind) == ("embed.weight", "decoder.weight", "alias")
    assert "uses only one" in found.notes[0]


def test_one_placeholder_that_two_modules_use_is_a_tie(exports: Path) -> None:
    [tie] = find.ties(read_exported(exports / "strict.pt2").graph)
    assert (tie.source, tie.target, tie.kind) == ("embed.weight", "decoder.weight", "tie")


def test_a_function_that_uses_a_layers_weight_is_tied_to_it(exports: Path) -> None:
    ties = find.ties(read_exported(exports / "functions.pt2").graph)
    assert ("embed.weight", "linear_2.weight") in [(tie.source, tie.target) for tie in ties]


def test_a_parameter_that_a_function_adds_is_no_tie(exports: Path) -> None:
    ties = find.ties(read_exported(exports / "functions.pt2").graph)
    assert "place" not in [tie.source for tie in ties]


def test_a_parameter_that_two_functions_use_is_tied(exports: Path) -> None:
    [tie] = find.ties(read_exported(exports / "root.pt2").graph)
    assert (tie.source, tie.target, tie.kind) == ("table", "linear.weight", "tie")


def test_torch_is_not_imported(exports: Path, python_without_frameworks) -> None:
    result = python_without_frameworks(
        "import sys; from pathlib import Path\n"
        "from tiesurgeon.rooms.pytorch.exported import read_exported\n"
        "print(read_exported(Path(sys.argv[1])).writer)",
        exports / "lm.pt2",
    )
    assert result.stdout.startswith("PyTorch 2."), result.stderr
