"""Edits of exported programs, and what they refuse."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.rooms.pytorch.exported.editing import edited, numbers, view
from tiesurgeon import find
from tiesurgeon.errors import TieRefused
from tiesurgeon.rooms.pytorch.exported import merge_aliases, read_exported

TIE = ("embed.weight", "decoder.weight", None)


def program(path: Path) -> dict:
    with zipfile.ZipFile(path) as archive:
        [name] = [n for n in archive.namelist() if n.endswith("models/model.json")]
        return json.loads(archive.read(name))


def weights(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        [name] = [n for n in archive.namelist() if n.endswith("model_weights_config.json")]
        config = json.loads(archive.read(name))["config"]
    return {key: entry["path_name"] for key, entry in config.items()}


def test_the_target_leaves_the_file(exports: Path, tmp_path: Path) -> None:
    edited(exports / "lm.pt2", tmp_path / "out.pt2", [TIE])
    assert "p_decoder_weight" not in json.dumps(program(tmp_path / "out.pt2"))
    with zipfile.ZipFile(tmp_path / "out.pt2") as archive:
        stored = {n.rpartition("/")[2] for n in archive.namelist() if "/weight_" in n}
    assert stored == set(weights(tmp_path / "out.pt2").values())
    assert len(stored) == 6


def test_sample_inputs_and_other_members_come_along(exports: Path, tmp_path: Path) -> None:
    edited(exports / "lm.pt2", tmp_path / "lm.pt2", [TIE])
    with zipfile.ZipFile(exports / "lm.pt2") as one, zipfile.ZipFile(tmp_path / "lm.pt2") as two:
        kept = {n for n in one.namelist() if "/weight_5" not in n and "serialization_id" not in n}
        assert kept == set(two.namelist())
        name = "lm/data/sample_inputs/model.pt"
        assert one.read(name) == two.read(name)


def test_provenance_is_attached_to_the_graph(exports: Path, tmp_path: Path) -> None:
    edited(exports / "lm.pt2", tmp_path / "out.pt2", [TIE])
    custom = program(tmp_path / "out.pt2")["graph_module"]["metadata"]["custom"]
    assert json.loads(custom)["tiesurgeon"]["provenance"] == {"source": "lm.pt2"}


def test_a_square_matrix_is_turned_only_if_it_should(exports: Path, tmp_path: Path) -> None:
    encoder = numbers(exports / "square.pt2", "encoder.weight")
    for perm in (None, (1, 0)):
        pair = ("encoder.weight", "decoder.weight", perm)
        edited(exports / "square.pt2", tmp_path / "out.pt2", [pair])
        found = numbers(tmp_path / "out.pt2", "decoder.weight")
        assert np.array_equal(found, encoder if perm is None else encoder.T)


@pytest.mark.parametrize("name", ["lm", "half", "native", "strict"])
def test_assigned_numbers_are_written(exports: Path, tmp_path: Path, name: str) -> None:
    found = read_exported(exports / f"{name}.pt2")
    array = view(found.graph, "embed.weight").load()
    value = np.arange(array.size).reshape(array.shape).astype(array.dtype)
    other = view(found.graph, "decoder.weight").load().copy()
    found.document.assign("embed.weight", value)
    found.document.write(tmp_path / "out.pt2", {})
    assert np.array_equal(numbers(tmp_path / "out.pt2", "embed.weight"), value)
    expected = value if name == "strict" else other
    assert np.array_equal(numbers(tmp_path / "out.pt2", "decoder.weight"), expected)


def test_numbers_are_assigned_through_a_transposed_tie(exports: Path, tmp_path: Path) -> None:
    document = read_exported(exports / "auto.pt2").document
    document.tie("encoder.weight", "decoder.weight", (1, 0))
    value = np.arange(21, dtype=np.float32).reshape(7, 3)
    document.assign("decoder.weight", value)
    document.write(tmp_path / "out.pt2", {})
    assert np.array_equal(numbers(tmp_path / "out.pt2", "encoder.weight"), value.T)


def test_convolutions_tie_as_they_are(exports: Path, tmp_path: Path) -> None:
    edited(exports / "conv.pt2", tmp_path / "out.pt2", [("conv.weight", "deconv.weight", None)])
    [tie] = find.ties(read_exported(tmp_path / "out.pt2").graph)
    assert (tie.source, tie.target) == ("conv.weight", "deconv.weight")


def test_weights_of_a_list_keep_their_names(exports: Path, tmp_path: Path) -> None:
    """The names of an LSTM's weights are not in the graph, which has them as one list."""
    pair = ("one.weight_hh_l0", "two.weight_ih_l0", None)
    edited(exports / "stacked.pt2", tmp_path / "out.pt2", [pair])
    [tie] = find.ties(read_exported(tmp_path / "out.pt2").graph)
    assert (tie.source, tie.target) == pair[:2]


def test_a_parameter_of_the_root_keeps_its_name(exports: Path, tmp_path: Path) -> None:
    edited(exports / "functions.pt2", tmp_path / "out.pt2", [("inner.weight", "square", None)])
    ties = find.ties(read_exported(tmp_path / "out.pt2").graph)
    assert {"inner.weight", "square"} in [{tie.source, tie.target} for tie in ties]


def test_one_of_three_is_untied_and_two_stay_one(exports: Path, tmp_path: Path) -> None:
    ties = [("one.weight", "two.weight", None), ("one.weight", "out.weight", None)]
    edited(exports / "three.pt2", tmp_path / "out.pt2", ties, ["one.weight"])
    [tie] = find.ties(read_exported(tmp_path / "out.pt2").graph)
    assert (tie.source, tie.target) == ("two.weight", "out.weight")


def test_an_alias_that_is_tied_to_another_leaves_the_third(exports: Path, tmp_path: Path) -> None:
    edited(exports / "three_native.pt2", tmp_path / "out.pt2", [("one.weight", "two.weight", None)])
    kinds = {(t.target, t.kind) for t in find.ties(read_exported(tmp_path / "out.pt2").graph)}
    assert kinds == {("two.weight", "tie"), ("out.weight", "alias")}


def test_one_of_three_names_goes_to_another_parameter(exports: Path, tmp_path: Path) -> None:
    """The program uses `out.weight` in the place of `one.weight`, and must not any more."""
    path = tmp_path / "out.pt2"
    edited(exports / "three_native.pt2", path, [("four.weight", "one.weight", None)])
    assert np.array_equal(numbers(path, "one.weight"), numbers(path, "four.weight"))
    assert not np.array_equal(numbers(path, "two.weight"), numbers(path, "four.weight"))


def test_names_that_the_program_does_not_use_go_with_the_target(
    exports: Path, tmp_path: Path
) -> None:
    pair = ("four.weight", "one.weight", None)
    edited(exports / "three_strict.pt2", tmp_path / "out.pt2", [pair])
    assert list(weights(tmp_path / "out.pt2")) == ["four.weight"]


def test_the_transpose_says_how_its_bytes_are_seen(exports: Path, tmp_path: Path) -> None:
    pair = ("encoder.weight", "decoder.weight", (1, 0))
    edited(exports / "auto.pt2", tmp_path / "out.pt2", [pair])
    meta = program(tmp_path / "out.pt2")["graph_module"]["graph"]["tensor_values"]["permute"]
    assert meta["sizes"] == [{"as_int": 7}, {"as_int": 3}]
    assert meta["strides"] == [{"as_int": 1}, {"as_int": 7}]


def test_merging_leaves_each_tied_parameter_once(exports: Path, tmp_path: Path) -> None:
    merged = merge_aliases(exports / "three_native.pt2", tmp_path / "out.pt2")
    assert merged == (("one.weight", "two.weight"), ("one.weight", "out.weight"))
    assert list(weights(tmp_path / "out.pt2")) == ["one.weight", "four.weight"]


def test_a_name_that_nothing_uses_is_merged_too(exports: Path, tmp_path: Path) -> None:
    merge_aliases(exports / "spare.pt2", tmp_path / "out.pt2")
    assert list(weights(tmp_path / "out.pt2")) == ["embed.weight", "out.bias"]
    [one, two] = find.ties(read_exported(tmp_path / "out.pt2").graph)
    assert {one.target, two.target} == {"out.weight", "shared.weight"}
    assert one.kind == two.kind == "tie"


def test_merging_leaves_two_parameters_that_are_both_used(exports: Path, tmp_path: Path) -> None:
    document = read_exported(exports / "three_native.pt2").document
    document.tie("one.weight", "two.weight", None)  # so `out` uses its own, on the same bytes
    document.write(tmp_path / "alias.pt2", {})
    assert merge_aliases(tmp_path / "alias.pt2", tmp_path / "out.pt2") == ()


def test_a_padding_row_that_will_train_is_told(exports: Path, tmp_path: Path) -> None:
    [warning] = edited(exports / "padded.pt2", tmp_path / "out.pt2", [TIE])
    assert "row 0 of embed.weight" in warning


@pytest.mark.parametrize(
    ("name", "pair", "words"),
    [
        ("renorm", TIE, "max_norm"),
        ("conv", ("bn.weight", "bn.running_mean", None), "is a buffer"),
        ("strict", TIE, "one parameter already"),
        ("lm", ("lstm.weight_ih_l0", "lstm.weight_hh_l0", None), "belong to one layer"),
        ("stacked", ("one.weight_ih_l0", "spare.weight", None), "not used by the program"),
    ],
)
def test_what_cannot_be_shared_is_refused(exports: Path, name: str, pair, words: str) -> None:
    with pytest.raises(TieRefused, match=words):
        read_exported(exports / f"{name}.pt2").document.tie(*pair)
