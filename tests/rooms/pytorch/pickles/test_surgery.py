"""Ties, unties and other numbers in whole modules and state dicts, as PyTorch then loads them."""

import copy
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.rooms.pytorch.pickles.files import (
    equal_autoencoder,
    equal_language_model,
    saved,
    storage_members,
    tied,
    untied,
    views,
)
from tests.rooms.pytorch.pickles.torch_modules import LanguageModel
from tiesurgeon.errors import TieRefused, UnknownName
from tiesurgeon.find import ties
from tiesurgeon.rooms.pytorch.pickles import read_pickled

LEGACY = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def loaded(path: Path) -> Any:
    return torch.load(path, weights_only=False)


@LEGACY
def test_a_tied_module_holds_one_parameter(legacy: bool, tmp_path: Path) -> None:
    model = equal_language_model()
    tied(saved(model, tmp_path / "lm.pt", legacy=legacy), "embed.weight", "decoder.weight")
    again = loaded(tmp_path / "tied.pt")
    assert again.decoder.weight is again.embed.weight
    assert again.embed.weight.requires_grad
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    [tie] = ties(read_pickled(tmp_path / "tied.pt").graph)
    assert tie.kind == "tie"


def test_the_dropped_numbers_are_not_in_the_file(tmp_path: Path) -> None:
    path = saved(equal_language_model(), tmp_path / "lm.pt")
    tied(path, "embed.weight", "decoder.weight")
    assert len(storage_members(tmp_path / "tied.pt")) == len(storage_members(path)) - 1


def test_every_other_place_that_holds_the_parameter_is_changed_too(tmp_path: Path) -> None:
    model = nn.Module()
    model.one, model.two = nn.LSTM(3, 3), nn.LSTM(3, 3)
    model.two.weight_ih_l0.data.copy_(model.one.weight_ih_l0.data)
    model.noted = [model.two.weight_ih_l0, (model.two.weight_ih_l0,)]
    model.called = {model.two.weight_ih_l0: "two"}
    path = saved(model, tmp_path / "m.pt")
    tied(path, "one.weight_ih_l0", "two.weight_ih_l0")
    again = loaded(tmp_path / "tied.pt")
    kept = again.one.weight_ih_l0
    assert again.two.weight_ih_l0 is again.two._flat_weights[0] is kept
    assert again.noted[0] is again.noted[1][0] is next(iter(again.called)) is kept


def test_all_names_of_the_target_come_along(tmp_path: Path) -> None:
    model = nn.Module()
    model.a, model.b, model.c = nn.Linear(3, 5), nn.Linear(3, 5), nn.Linear(3, 5)
    model.c.weight = model.b.weight
    tied(saved(model, tmp_path / "m.pt"), "a.weight", "b.weight")
    again = loaded(tmp_path / "tied.pt")
    assert again.a.weight is again.b.weight is again.c.weight


@LEGACY
def test_an_untied_module_holds_two_again(legacy: bool, tmp_path: Path) -> None:
    model = equal_language_model()
    model.decoder.weight = model.embed.weight
    model.embed.weight.requires_grad_(False)
    untied(saved(model, tmp_path / "lm.pt", legacy=legacy), "decoder.weight")
    again = loaded(tmp_path / "untied.pt")
    assert again.decoder.weight is not again.embed.weight
    assert torch.equal(again.decoder.weight, again.embed.weight)
    assert again.decoder.weight.data_ptr() != again.embed.weight.data_ptr()
    assert not again.decoder.weight.requires_grad
    assert not ties(read_pickled(tmp_path / "untied.pt").graph)


def test_untying_one_of_three_names_leaves_two_tied(tmp_path: Path) -> None:
    model = nn.ModuleList(nn.Linear(3, 5) for _ in range(3))
    model[1].weight = model[2].weight = model[0].weight
    untied(saved(model, tmp_path / "m.pt"), "0.weight")
    again = loaded(tmp_path / "untied.pt")
    assert again[1].weight is again[2].weight is not again[0].weight


def test_untying_a_layer_used_twice_copies_the_layer_and_what_holds_it(tmp_path: Path) -> None:
    block = nn.Sequential(nn.Sequential(nn.Linear(5, 5)))
    model = nn.Sequential(block, nn.ReLU(), block)
    untied(saved(model, tmp_path / "m.pt"), "2.0.0.weight")
    again = loaded(tmp_path / "untied.pt")
    assert again[2] is not again[0]
    assert again[2][0][0].weight is not again[0][0][0].weight
    assert again[2][0][0].bias is again[0][0][0].bias
    x = torch.ones(2, 5)
    assert torch.equal(again(x), model(x))


def test_untying_a_recurrent_weight_changes_its_flat_weights(tmp_path: Path) -> None:
    model = nn.ModuleList([nn.LSTM(3, 3), nn.LSTM(3, 3)])
    model[1].weight_ih_l0 = model[0].weight_ih_l0
    untied(saved(model, tmp_path / "m.pt"), "1.weight_ih_l0")
    again = loaded(tmp_path / "untied.pt")
    assert again[1]._flat_weights[0] is again[1].weight_ih_l0 is not again[0].weight_ih_l0


def test_untying_an_alias_gives_it_its_own_storage(tmp_path: Path) -> None:
    model = equal_autoencoder()
    model.decoder.weight = nn.Parameter(model.encoder.weight.data.t())
    untied(saved(model, tmp_path / "m.pt"), "decoder.weight")
    again = loaded(tmp_path / "untied.pt")
    assert again.decoder.weight.is_contiguous()
    again.decoder.weight.data[0, 0] = 9
    assert again.encoder.weight[0, 0] != 9


def test_what_is_not_shared_needs_no_untying(tmp_path: Path) -> None:
    path = saved(equal_language_model(), tmp_path / "m.pt")
    untied(path, "decoder.weight")
    assert storage_members(tmp_path / "untied.pt") == storage_members(path)


@LEGACY
@pytest.mark.parametrize("mmap", [False, True])
def test_a_tied_state_dict_has_one_storage(legacy: bool, mmap: bool, tmp_path: Path) -> None:
    state = equal_language_model().state_dict()
    path = saved(state, tmp_path / "sd.pt", legacy=legacy)
    found = tied(path, "embed.weight", "decoder.weight")
    assert found.document.code == ("model.decoder.weight = model.embed.weight",)
    again = torch.load(tmp_path / "tied.pt", weights_only=True, mmap=mmap and not legacy)
    assert again["decoder.weight"].data_ptr() == again["embed.weight"].data_ptr()
    assert list(again) == list(state)
    assert again._metadata == state._metadata
    for name in state:
        assert torch.equal(again[name], state[name])


@LEGACY
def test_a_transposed_tie_in_a_state_dict_is_a_stride(legacy: bool, tmp_path: Path) -> None:
    model = equal_autoencoder()
    path = saved(model.state_dict(), tmp_path / "sd.pt", legacy=legacy)
    found = tied(path, "encoder.weight", "decoder.weight", (1, 0))
    assert found.document.code == (
        "F.linear(x, model.encoder.weight.t(), model.decoder.bias)  # in place of model.decoder(x)",
    )
    again = torch.load(tmp_path / "tied.pt", weights_only=True)
    assert again["decoder.weight"].stride() == (1, 7)
    assert again["decoder.weight"].data_ptr() == again["encoder.weight"].data_ptr()
    model.load_state_dict(again)
    untied(tmp_path / "tied.pt", "decoder.weight")
    again = torch.load(tmp_path / "untied.pt", weights_only=True)
    assert again["decoder.weight"].is_contiguous()
    assert torch.equal(again["decoder.weight"], model.decoder.weight)


def test_a_square_matrix_is_turned_only_when_told(tmp_path: Path) -> None:
    state = {"a": torch.arange(25.0).reshape(5, 5), "b": torch.ones(5, 5)}
    for perm, expected in ((None, state["a"]), ((1, 0), state["a"].t())):
        tied(saved(state, tmp_path / "sd.pt"), "a", "b", perm)
        again = torch.load(tmp_path / "tied.pt", weights_only=True)
        assert torch.equal(again["b"], expected)


def test_untying_a_state_dict_where_one_tensor_has_two_names(tmp_path: Path) -> None:
    tensor = torch.ones(5, 3)
    untied(saved({"a": tensor, "b": tensor}, tmp_path / "sd.pt"), "b")
    again = torch.load(tmp_path / "untied.pt", weights_only=True)
    assert again["a"].data_ptr() != again["b"].data_ptr()


def test_names_in_lists_and_dicts_are_written_as_code(tmp_path: Path) -> None:
    state = {
        "module.layers.0.weight": torch.ones(5, 3),
        "module.heads.a-b.weight": torch.ones(5, 3),
    }
    source, target = state
    found = tied(saved(state, tmp_path / "sd.pt"), source, target)
    assert found.document.code == (
        "model.module.heads['a-b'].weight = model.module.layers[0].weight",
    )


def test_where_the_file_came_from_is_stored_with_the_code(tmp_path: Path) -> None:
    state = equal_language_model().state_dict()
    tied(saved(state, tmp_path / "sd.pt"), "embed.weight", "decoder.weight")
    with zipfile.ZipFile(tmp_path / "tied.pt") as archive:
        [name] = [name for name in archive.namelist() if name.endswith("extra/tiesurgeon.json")]
        note = json.loads(archive.read(name))
    assert note == {"source": "sd.pt", "code": ["model.decoder.weight = model.embed.weight"]}


NUMBERS = np.arange(33, dtype=np.float32).reshape(11, 3)


@LEGACY
def test_other_numbers_are_written(legacy: bool, tmp_path: Path) -> None:
    found = read_pickled(saved(LanguageModel(), tmp_path / "lm.pt", legacy=legacy))
    found.document.assign("embed.weight", NUMBERS)
    found.document.write(tmp_path / "new.pt", {})
    again = loaded(tmp_path / "new.pt")
    np.testing.assert_array_equal(again.embed.weight.detach(), NUMBERS)


@pytest.mark.parametrize("name", ["rows", "turned", "column", "whole"])
def test_other_numbers_reach_their_place_in_a_shared_storage(name: str, tmp_path: Path) -> None:
    whole = torch.arange(35.0).reshape(5, 7)
    state = {"whole": whole, "rows": whole[2:], "turned": whole.t(), "column": whole[:, 3]}
    found = read_pickled(saved(state, tmp_path / "sd.pt"))
    value = -np.arange(state[name].numel(), dtype=np.float32).reshape(state[name].shape) - 1
    found.document.assign(name, value)
    found.document.write(tmp_path / "new.pt", {})
    state[name].copy_(torch.from_numpy(value))
    again = torch.load(tmp_path / "new.pt", weights_only=True)
    for key, tensor in state.items():
        assert torch.equal(again[key], tensor)


@LEGACY
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e5m2", "int64", "complex64"])
def test_other_numbers_of_any_dtype(dtype: str, legacy: bool, tmp_path: Path) -> None:
    if legacy and dtype.startswith("float8"):
        pytest.skip("PyTorch writes such files and cannot load them")
    state = {"a": torch.zeros(2, 3, dtype=getattr(torch, dtype)), "b": torch.ones(5)}
    found = read_pickled(saved(state, tmp_path / "sd.pt", legacy=legacy))
    value = np.arange(6).reshape(2, 3).astype(views(found)["a"].variable.storage.dtype)
    found.document.assign("a", value)
    found.document.write(tmp_path / "new.pt", {})
    again = torch.load(tmp_path / "new.pt", weights_only=True)
    assert torch.equal(again["a"].to(torch.complex64).real, torch.arange(6.0).reshape(2, 3))
    assert torch.equal(again["b"], state["b"])


def test_numbers_assigned_after_a_tie_are_seen_from_both_ends(tmp_path: Path) -> None:
    found = read_pickled(saved(LanguageModel(), tmp_path / "lm.pt"))
    found.document.tie("embed.weight", "decoder.weight", None)
    found.document.assign("embed.weight", NUMBERS)
    found.document.untie("decoder.weight")
    found.document.assign("embed.weight", -NUMBERS)
    found.document.write(tmp_path / "new.pt", {})
    again = loaded(tmp_path / "new.pt")
    np.testing.assert_array_equal(again.decoder.weight.detach(), NUMBERS)
    np.testing.assert_array_equal(again.embed.weight.detach(), -NUMBERS)


@LEGACY
@pytest.mark.parametrize("bias", [True, False])
def test_a_transposed_tie_in_a_module(legacy: bool, bias: bool, tmp_path: Path) -> None:
    model = equal_autoencoder(bias).eval()
    path = saved(model, tmp_path / "ae.pt", legacy=legacy)
    found = tied(path, "encoder.weight", "decoder.weight", (1, 0))
    assert "decoder is now a GraphModule of torch.fx" in found.document.warnings[0]
    again = loaded(tmp_path / "tied.pt")
    assert again.decoder.weight is again.encoder.weight
    assert not again.decoder.training
    x = torch.randn(5, 7)
    torch.testing.assert_close(again(x), model(x))
    for one in (again, copy.deepcopy(again).to(torch.float64)):
        assert one.decoder.weight is one.encoder.weight


def test_a_transposed_tie_is_recognised_also_when_torch_wrote_it(tmp_path: Path) -> None:
    tied(saved(equal_autoencoder(), tmp_path / "ae.pt"), "encoder.weight", "decoder.weight", (1, 0))
    again = saved(copy.deepcopy(loaded(tmp_path / "tied.pt")), tmp_path / "again.pt")
    for path in (tmp_path / "tied.pt", again):
        found = read_pickled(path)
        [tie] = ties(found.graph)
        assert (tie.source, tie.target, tie.perm) == ("encoder.weight", "decoder.weight", (1, 0))
        assert found.graph.layer("decoder").op == "Linear"
        assert found.classes == ("tests.rooms.pytorch.pickles.torch_modules.Autoencoder",)


@pytest.mark.parametrize("bias", [True, False])
def test_an_untied_transpose_is_a_plain_linear_again(bias: bool, tmp_path: Path) -> None:
    model = equal_autoencoder(bias)
    tied(saved(model, tmp_path / "ae.pt"), "encoder.weight", "decoder.weight", (1, 0))
    untied(tmp_path / "tied.pt", "decoder.weight")
    again = loaded(tmp_path / "untied.pt")
    assert type(again.decoder) is nn.Linear
    assert str(again) == str(model)
    x = torch.randn(5, 7)
    assert torch.equal(again(x), model(x))
    torch.save(again, tmp_path / "once more.pt")


def test_a_third_name_can_be_tied_to_a_transpose(tmp_path: Path) -> None:
    model = nn.ModuleList([nn.Linear(7, 3), nn.Linear(3, 7), nn.Linear(3, 7)])
    path = saved(model, tmp_path / "m.pt")
    tied(path, "0.weight", "1.weight", (1, 0))
    tied(tmp_path / "tied.pt", "1.weight", "2.weight", to="again.pt")
    again = loaded(tmp_path / "again.pt")
    assert again[0].weight is again[1].weight is again[2].weight
    x = torch.randn(5, 3)
    torch.testing.assert_close(again[2](x) - again[2].bias, again[1](x) - again[1].bias)


def refusal(model: Any, path: Path, *pair: Any) -> str:
    before = saved(model, path).read_bytes()
    found = read_pickled(path)
    with pytest.raises(TieRefused) as caught:
        found.document.tie(*pair)
    found.document.write(path.with_name("same.pt"), {})
    assert str(torch.load(path.with_name("same.pt"), weights_only=False)) == str(model)
    assert path.read_bytes() == before
    return str(caught.value)


def test_ties_that_would_change_the_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    pair = ("embed.weight", "decoder.weight", None)
    assert "has max_norm" in refusal(LanguageModel(max_norm=1.0), path, *pair)
    half = LanguageModel()
    half.decoder.half()
    assert "one tensor has one dtype" in refusal(half, path, *pair)
    assert "would be seen as (11, 3)" in refusal(
        LanguageModel(), path, pair[0], "decoder.bias", None
    )
    bufferful = LanguageModel()
    bufferful.register_buffer("table", torch.ones(11, 3))
    assert "table is a buffer" in refusal(bufferful, path, pair[0], "table", None)


def test_transposed_ties_of_other_layers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    model = nn.ModuleList([nn.Linear(7, 3), nn.Bilinear(2, 2, 7), nn.Linear(3, 7)])
    model[1].weight = nn.Parameter(torch.ones(7, 3))
    words = refusal(model, path, "0.weight", "1.weight", (1, 0))
    assert "no plain nn.Linear" in words
    assert ".pt2" in words
    model[2].register_forward_hook(print)
    assert "has hooks" in refusal(model, path, "0.weight", "2.weight", (1, 0))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantised_tensors_are_not_tied(tmp_path: Path) -> None:
    tensor = torch.quantize_per_tensor(torch.ones(2, 3), 0.5, 3, torch.qint8)
    found = read_pickled(saved({"a": tensor, "b": tensor.clone()}, tmp_path / "q.pt"))
    with pytest.raises(TieRefused, match="is quantised"):
        found.document.tie("a", "b", None)


def test_an_unknown_name(tmp_path: Path) -> None:
    found = read_pickled(saved(LanguageModel(), tmp_path / "lm.pt"))
    with pytest.raises(UnknownName, match="no tensor named 'nothing'"):
        found.document.untie("nothing")


def test_what_a_tie_changes_in_training_is_said(tmp_path: Path) -> None:
    model = LanguageModel(padding_idx=2, sparse=True)
    found = tied(saved(model, tmp_path / "lm.pt"), "embed.weight", "decoder.weight")
    padding, sparse = found.document.warnings
    assert padding == (
        "row 2 of embed.weight is padding_idx, which look-ups do not train; "
        "decoder (Linear) now trains it"
    )
    assert "SparseAdam" in sparse
    assert loaded(tmp_path / "tied.pt").embed.padding_idx == 2


def test_two_embeddings_with_one_padding_row_need_no_words(tmp_path: Path) -> None:
    model = nn.ModuleList([nn.Embedding(11, 3, 2), nn.Embedding(11, 3, 2)])
    assert not tied(saved(model, tmp_path / "m.pt"), "0.weight", "1.weight").document.warnings


def test_a_tie_across_a_module_and_a_state_dict_is_refused(tmp_path: Path) -> None:
    one = nn.Linear(3, 5)
    found = read_pickled(saved({"m": one, "s": one.state_dict()}, tmp_path / "c.pt"))
    with pytest.raises(TieRefused, match="do not lie in one model"):
        found.document.tie("m.weight", "s.weight", None)


def test_two_parts_of_one_storage_get_other_numbers(tmp_path: Path) -> None:
    whole = torch.zeros(5, 7)
    found = read_pickled(saved({"top": whole[:2], "rest": whole[2:]}, tmp_path / "sd.pt"))
    found.document.assign("top", np.full((2, 7), 2, np.float32))
    found.document.assign("rest", np.full((3, 7), 3, np.float32))
    found.document.write(tmp_path / "new.pt", {})
    again = torch.load(tmp_path / "new.pt", weights_only=True)
    assert torch.equal(again["top"], torch.full((2, 7), 2.0))
    assert torch.equal(again["rest"], torch.full((3, 7), 3.0))
