"""What `inspect` prints: true, whole at 80 columns, and safe for the terminal."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.handmade_torch import bare, embedding
from tiesurgeon import find, report
from tiesurgeon.find import Tie
from tiesurgeon.graph import Call, Graph, Layer, Value, Variable, View, in_memory
from tiesurgeon.inspection import Inspection, inspect, inspect_many
from tiesurgeon.report.text import size

KEYS = {
    "schema", "path", "format", "writer", "parameters", "bytes",
    "layers", "ties", "candidates", "warnings",
}  # fmt: skip


def text(path: Path, *, values: bool = True) -> str:
    return report.as_text(inspect(path, values=values), color=False)


def test_json_is_the_document_of_the_design(samples: Path) -> None:
    found = json.loads(report.as_json(inspect(samples / "char_lm.h5")))
    assert set(found) == KEYS
    assert (found["schema"], found["format"]) == (1, "keras-h5")
    assert found["parameters"] == {"total": 42_183, "unique": 42_183}
    assert found["bytes"] == {"stored": 168_732, "unique": 168_732}
    (embedding,) = (layer for layer in found["layers"] if layer["name"] == "embedding")
    assert embedding["op"] == "Embedding"
    assert embedding["calls"] == [{"inputs": ["tokens"], "outputs": ["embedding"]}]
    (variable,) = embedding["variables"]
    assert variable.pop("storage")
    assert variable == {
        "name": "embedding/embeddings",
        "shape": [71, 64],
        "dtype": "float32",
        "trainable": True,
    }
    (candidate,) = found["candidates"]
    assert candidate["perm"] == [1, 0]
    assert candidate["saves_bytes"] == 71 * 64 * 4
    assert 1 < candidate["relative_difference"] < 5


def test_json_names_every_output_that_is_used(samples: Path) -> None:
    found = report.document(inspect(samples / "seq2seq.keras"))
    calls = {layer["name"]: layer["calls"] for layer in found["layers"]}
    assert calls["encoder"][0]["outputs"] == ["encoder", "encoder[1]", "encoder[2]"]
    assert calls["decoder"][0]["inputs"] == ["decoder_embedding", "encoder[1]", "encoder[2]"]


def test_json_of_several_files_says_what_is_equal_between_them(samples: Path) -> None:
    several = inspect_many([samples / "char_lm.h5", samples / "char_lm_equal.h5"])
    found = json.loads(report.as_json(several))
    assert set(found) == {"schema", "files", "between"}
    assert [set(one) for one in found["files"]] == [KEYS, KEYS]


def test_json_has_no_nan(samples: Path) -> None:
    found = inspect(samples / "char_lm.h5")
    broken = replace(found.candidates[0], relative_difference=None, cosine=None)
    written = report.as_json(replace(found, candidates=(broken,)))
    assert json.loads(written)["candidates"][0]["relative_difference"] is None
    assert "not comparable" in report.as_text(replace(found, candidates=(broken,)), color=False)


SAMPLES = [
    "char_lm.h5", "char_lm_equal.h5", "gru_lm.keras", "seq2seq.keras", "siamese.keras",
    "multi_input.keras", "autoencoder.keras", "keras2_lm.h5",
]  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_text_fits_eighty_columns_and_breaks_no_ordinary_name(samples: Path, name: str) -> None:
    found = inspect(samples / name)
    lines = report.as_text(found, color=False).splitlines()
    # Paths and commands are for copying: they are never broken.
    assert all(len(line) <= 80 for line in lines[1:] if "tiesurgeon tie" not in line)
    printed = {word for line in lines for word in line.split()}
    assert {layer.name for _, layer in found.graph.walk()} <= printed
    assert not any("\x1b" in line for line in lines)


def test_different_values_ask_for_a_method_and_say_how_different(samples: Path) -> None:
    found = text(samples / "char_lm.h5")
    assert "dense <- embedding  transposed  different values" in found
    assert "keep-source, keep-target or mean" in found
    assert found.endswith("--pair embedding dense --method mean")


def test_equal_values_need_no_method(samples: Path) -> None:
    found = text(samples / "char_lm_equal.h5")
    assert "equal bit by bit" in found
    assert found.endswith("--pair embedding dense")
    assert "--method" not in found


def test_without_values_nothing_is_claimed_about_them(samples: Path) -> None:
    found = text(samples / "char_lm_equal.h5", values=False)
    assert "values not compared" in found
    assert "equal bit by bit" not in found
    assert "Values were not compared" in found


def test_what_is_used_twice_is_said_once_a_layer(samples: Path) -> None:
    found = text(samples / "siamese.keras")
    assert "embedding is used 2 times" in found
    assert "lstm is used 2 times  (one set of weights: kernel, recurrent_kernel, bias)" in found
    assert "tiesurgeon tie" not in found


def test_the_command_can_be_pasted_whatever_the_path(samples: Path, tmp_path: Path) -> None:
    path = tmp_path / "my model's file.h5"
    path.write_bytes((samples / "char_lm_equal.h5").read_bytes())
    command = text(path).splitlines()[-1]
    words = ["tiesurgeon", "tie", str(path), "--pair", "embedding", "dense"]
    assert shlex.split(command) == words


def made_up(*layers: Layer, calls: tuple[Call, ...] = (), **changes: object) -> Inspection:
    graph = Graph("m", "Functional", layers, calls)
    count = sum(variable.storage.size for variable in graph.variables())
    counts = count, count, 4 * count, 4 * count
    found = Inspection(
        Path("m.h5"),
        "keras-h5",
        "keras 3",
        graph,
        find.ties(graph),
        find.candidates(graph),
        *counts,
        warnings=(),
        has_values=True,
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def weights(name: str, role: str, *shape: int, trainable: bool = True, dtype: str = "f4") -> View:
    array = np.random.default_rng(1).normal(size=shape).astype(dtype)
    return View(role, Variable(f"{name}/{role}", in_memory(name, array), trainable))


def test_names_from_the_file_cannot_steer_the_terminal() -> None:
    name = "evil\x1b[31m[red]\n\rname"
    found = made_up(
        Layer(name, "Embedding", views=(weights(name, "embeddings", 11, 3),)),
        Layer(f"{name}2", "Dense\x07", views=(weights(name, "kernel\x1b[2J", 11, 3),)),
        writer="keras [bold]\x1b]0;owned\x07",
        warnings=("\x1b[31m",),
    )
    printed = report.as_text(found, color=False, width=200)
    assert not any(char in printed for char in "\x1b\x07\r")
    assert "evil?[31m[red]??name" in printed
    assert "written by keras [bold]?]0;owned?" in printed
    assert "\x1b" not in report.as_html(found)


def test_frozen_weights_and_mixed_types_are_marked() -> None:
    found = made_up(
        Layer("a", "Dense", views=(weights("a", "kernel", 5, 2, trainable=False),)),
        Layer("b", "Dense", views=(weights("b", "kernel", 5, 2, dtype="f2"),)),
    )
    printed = report.as_text(found, color=False)
    assert "kernel 5x2 float32 frozen" in printed
    assert "kernel 5x2 float16" in printed
    assert "20 parameters" in printed


def test_an_alias_is_not_called_a_tie() -> None:
    storage = in_memory("one", np.random.default_rng(1).normal(size=(11, 3)))
    layers = (
        Layer(name, "Embedding", views=(View("embeddings", Variable(name, storage)),))
        for name in "ab"
    )
    printed = report.as_text(made_up(*layers), color=False)
    tied, could = printed.split("Could be tied")
    assert "nothing" in tied.split("Already tied")[1]
    assert "trained apart" in tied
    assert "b <- a" in could


def test_of_a_state_dict_stored_once_the_class_has_the_last_word() -> None:
    storage = in_memory("0", np.random.default_rng(1).normal(size=(11, 3)))
    once = tuple(
        Layer(name, "", views=(View("weight", Variable(name, storage)),), separator=".")
        for name in ("wte", "lm_head")
    )
    printed = report.as_text(made_up(*once), color=False)
    assert "lm_head.weight and wte.weight are stored once: they are tied if the class" in printed
    assert "trained apart" not in printed
    assert "tiesurgeon tie" not in printed


def test_pytorch_files_need_no_graph_to_be_tied() -> None:
    layers = bare({"wte.weight": (11, 3), "lm_head.weight": (11, 3)}).layers
    printed = report.as_text(made_up(*layers), color=False)
    assert "tiesurgeon tie" in printed
    assert "--pair wte lm_head --method mean" in printed


def test_a_dotted_layer_that_is_called_twice_is_named_without_its_role() -> None:
    found = made_up(embedding("encoder.emb", (11, 3)))
    tied = Tie("encoder.emb.weight", "encoder.emb.weight", None, "tie", 2)
    printed = report.as_text(replace(found, ties=(tied,)), color=False)
    assert "encoder.emb is used 2 times  (one matrix: weight)" in printed


def test_long_lists_of_candidates_are_cut_with_a_word() -> None:
    array = np.random.default_rng(1).normal(size=(5, 2))
    layers = [
        Layer(f"d{n}", "Dense", views=(View("kernel", Variable(f"d{n}", in_memory("", array))),))
        for n in range(20)
    ]
    printed = report.as_text(made_up(*layers), color=False)
    assert " 12. " in printed
    assert " 13. " not in printed
    assert "and 7 more" in printed


def test_nested_layers_are_indented_under_their_model() -> None:
    inner = Layer("emb", "Embedding", views=(weights("a/emb", "embeddings", 11, 3),))
    body = Graph("a", "Functional", (inner,), (Call("emb", "emb"),), (), Value("emb"))
    found = made_up(Layer("a", "Functional", body=body), calls=(Call("a", "a"),))
    lines = report.as_text(found, color=False).splitlines()
    assert any(line.startswith("a ") for line in lines)
    assert any(line.startswith("  emb ") for line in lines)
    assert [layer["name"] for layer in report.document(found)["layers"]] == ["a", "a/emb"]


def test_colour_is_for_terminals(samples: Path) -> None:
    found = inspect(samples / "char_lm.h5")
    assert "\x1b[" in report.as_text(found, color=True)
    page = report.as_html(found)
    assert page.startswith("<!DOCTYPE html>")
    assert "embedding" in page


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (999, "999 bytes"), (18_176, "18.2 KB"), (5_000_000_000, "5.0 GB")],
)
def test_sizes(count: int, said: str) -> None:
    assert size(count) == said
