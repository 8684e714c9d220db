"""Folders written anew: what changes and what does not; and folders that lie."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tiesurgeon.errors import TieRefused, UnreadableFile
from tiesurgeon.find import ties
from tiesurgeon.rooms.pytorch.check import tensors
from tiesurgeon.rooms.pytorch.huggingface import read_folder

V, H = 11, 3
INDEX = "model.safetensors.index.json"
FIRST, LAST = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"
NORM = "model.norm.weight"


def config(folder: Path, **content: Any) -> None:
    content = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **content}
    (folder / "config.json").write_text(json.dumps(content))


def index(folder: Path, placed: dict[str, Any], **metadata: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": metadata, "weight_map": placed}))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A table and a norm in one shard, the head alone in the other, and a tokenizer."""
    folder = tmp_path / "model"
    (folder / "below").mkdir(parents=True)
    table = torch.arange(V * H, dtype=torch.float32).reshape(V, H)
    save_file({TABLE: table, NORM: torch.ones(H)}, folder / FIRST, {"format": "pt"})
    save_file({HEAD: table.clone()}, folder / LAST, {"format": "pt"})
    size = 4 * (2 * V * H + H)
    index(folder, {TABLE: FIRST, NORM: FIRST, HEAD: LAST}, total_size=size, total_parameters=69)
    config(folder, tie_word_embeddings=False, torch_dtype="float32", time=[float("inf")])
    (folder / "tokenizer.json").write_text("{}")
    (folder / "below" / "more.txt").write_text("more")
    return folder


def written(folder: Path) -> Path:
    document = read_folder(folder).document
    document.tie(TABLE, HEAD, None)
    target = folder.with_name("out")
    target.mkdir()
    document.write(target, {"source": folder.name})
    return target


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_only_what_changes_is_written_anew(sharded: Path) -> None:
    before, after = content(sharded), content(written(sharded))

    assert before.keys() - after.keys() == {LAST}  # emptied, so it goes
    assert after.keys() <= before.keys()
    changed = {name for name in after if before[name] != after[name]}
    assert changed == {"config.json", INDEX}
    found = json.loads(after["config.json"])
    assert found == {**json.loads(before["config.json"]), "tie_word_embeddings": True}
    assert json.loads(after[INDEX]) == {
        "metadata": {"total_size": 4 * (V * H + H), "total_parameters": 69 - V * H},
        "weight_map": {TABLE: FIRST, NORM: FIRST},
    }


def test_a_shard_that_changes_says_where_it_came_from(sharded: Path) -> None:
    merged = load_file(sharded / FIRST) | load_file(sharded / LAST)
    for name in (FIRST, LAST, INDEX):
        (sharded / name).unlink()
    save_file(merged, sharded / "model.safetensors", {"format": "pt", "mine": "kept"})
    target = written(sharded) / "model.safetensors"
    with safe_open(target, "pt") as file:
        found = file.metadata()
        assert set(file.keys()) == {TABLE, NORM}
    assert found == {"format": "pt", "mine": "kept", "tiesurgeon": '{"source": "model"}'}


def test_the_flag_is_set_where_each_version_reads_it(sharded: Path) -> None:
    config(sharded, text_config={"tie_word_embeddings": False, "n": 3})
    found = json.loads((written(sharded) / "config.json").read_text())
    assert found["tie_word_embeddings"] is True
    assert found["text_config"] == {"tie_word_embeddings": True, "n": 3}


def test_untie_puts_the_copy_beside_the_table(sharded: Path) -> None:
    tied = written(sharded)
    again = sharded.with_name("again")
    again.mkdir()
    document = read_folder(tied).document
    document.untie(HEAD)
    document.write(again, {})

    found = load_file(again / FIRST)
    assert torch.equal(found[HEAD], found[TABLE])
    placed = json.loads((again / INDEX).read_text())
    assert placed["weight_map"] == dict.fromkeys((TABLE, NORM, HEAD), FIRST)
    assert placed["metadata"] == {"total_size": 4 * (2 * V * H + H), "total_parameters": 69}
    assert json.loads((again / "config.json").read_text())["tie_word_embeddings"] is False
    assert not ties(read_folder(again).graph)


def test_a_pair_that_transformers_would_not_tie_is_refused(sharded: Path) -> None:
    document = read_folder(sharded).document
    with pytest.raises(TieRefused, match=r"of LlamaForCausalLM it ties lm_head\.weight <-"):
        document.tie(NORM, HEAD, None)
    with pytest.raises(TieRefused, match="transposed"):
        document.tie(TABLE, HEAD, (1, 0))
    config(sharded, architectures=["ZambaForCausalLM"])
    with pytest.raises(TieRefused, match="more than this version knows"):
        read_folder(sharded).document.tie(TABLE, HEAD, None)


def test_a_flag_that_scales_is_not_touched(sharded: Path) -> None:
    config(sharded, model_type="switch_transformers", tie_word_embeddings=False)
    with pytest.raises(TieRefused, match="would change its outputs"):
        read_folder(sharded).document.tie(TABLE, HEAD, None)


def test_stored_twice_with_the_flag_on_is_said(sharded: Path) -> None:
    config(sharded, tie_word_embeddings=True)
    found = read_folder(sharded)
    [note] = found.notes
    assert "the folder stores both" in note
    assert note.endswith("the second copy, 132 bytes")
    held = tensors(found.graph)
    assert held[TABLE].variable is not held[HEAD].variable
    assert HEAD not in {name for p in (FIRST,) for name in load_file(written(sharded) / p)}


def test_a_head_that_nobody_will_fill_is_said(sharded: Path) -> None:
    (sharded / LAST).unlink()
    index(sharded, {TABLE: FIRST, NORM: FIRST})
    [note] = read_folder(sharded).notes
    assert note.startswith("lm_head.weight is not stored and the config does not tie it")


def test_weights_in_other_forms_are_named(sharded: Path) -> None:
    (sharded / "tf_model.h5").touch()
    found = read_folder(sharded)
    assert found.notes[0].startswith("tf_model.h5 holds weights too")
    assert "tf_model.h5 is copied as it is" in found.document.warnings[0]


def test_code_of_the_folder_is_named_and_not_run(sharded: Path) -> None:
    config(sharded, auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"})
    (sharded / "modeling_mine.py").write_text("raise SystemExit")
    assert read_folder(sharded).classes == ("modeling_mine.Mine",)


def test_a_snapshot_of_the_hub_cache_is_a_folder(sharded: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(p for p in sharded.iterdir() if p.is_file()):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", str(number)))
    target = written(snapshot)
    assert not any(path.is_symlink() for path in target.iterdir())
    assert [(tie.source, tie.target) for tie in ties(read_folder(target).graph)] == [(TABLE, HEAD)]


def outside(name: str) -> Callable[[Path], None]:
    """Moves a file out of the folder, and a link to it in."""

    def move(folder: Path) -> None:
        elsewhere = folder.with_name("elsewhere")
        (folder / name).rename(elsewhere)
        (folder / name).symlink_to(elsewhere)

    return move


def rewritten(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def at(place: str) -> Callable[[Path], object]:
    return lambda folder: index(folder, {HEAD: place})


PLACED = {TABLE: FIRST, NORM: FIRST, HEAD: LAST}
LIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "config no JSON": (rewritten("config.json", "{"), "config.json is not JSON"),
    "config a list": (rewritten("config.json", "[]"), "config.json is not a JSON object"),
    "config too deep": (rewritten("config.json", "[" * 200_000), "nested too deeply"),
    "config outside": (outside("config.json"), "config.json is a link that leaves the folder"),
    "no weights": (lambda f: (f / INDEX).unlink(), "holds none of model.safetensors"),
    "index no JSON": (rewritten(INDEX, "]"), f"{INDEX} is not JSON"),
    "index without map": (rewritten(INDEX, "{}"), "has no weight_map"),
    "index of numbers": (lambda f: index(f, {TABLE: 1}), "has no weight_map"),
    "shard missing": (lambda f: (f / LAST).unlink(), f"{LAST} is missing"),
    "shard outside": (outside(LAST), f"{LAST} is a link that leaves the folder"),
    "shard truncated": (lambda f: os.truncate(f / FIRST, 200), FIRST),
    "shard of another kind": (
        lambda f: index(f, {**PLACED, HEAD: "config.json"}),
        "names config.json, expected files that end in .safetensors",
    ),
    "key not there": (
        lambda f: index(f, {**PLACED, "gone": LAST}),
        f"says that gone is in {LAST}, where it is not",
    ),
    "key elsewhere": (lambda f: index(f, {**PLACED, NORM: LAST}), f"says that {NORM} is in {LAST}"),
    "key not in the index": (
        lambda f: index(f, {TABLE: FIRST, HEAD: LAST}),
        f"holds {NORM}, which",
    ),
    "key in both": (
        lambda f: save_file({TABLE: torch.ones(V, H), HEAD: torch.ones(1)}, f / LAST),
        f"{TABLE} is in {FIRST} and in {LAST}",
    ),
    **{
        f"shard at {name!r}": (at(name), "not in the folder")
        for name in ("../x.safetensors", "/x.safetensors", "a\\x.safetensors", "..", "", "below/x")
    },
}


@pytest.mark.parametrize("name", LIES)
def test_a_folder_that_lies(sharded: Path, name: str) -> None:
    lie, expected = LIES[name]
    lie(sharded)
    with pytest.raises(UnreadableFile) as error:
        read_folder(sharded)
    assert expected in str(error.value)
    assert str(error.value).startswith(f"{sharded}")
    assert "\n" not in str(error.value)


def test_a_wrong_total_size_is_said(sharded: Path) -> None:
    index(sharded, PLACED, total_size=7)
    assert list(read_folder(sharded).notes) == [
        f"{INDEX} says total_size 7, and the files hold 276 bytes"
    ]


def test_a_link_that_leaves_is_not_copied(sharded: Path) -> None:
    outside("tokenizer.json")(sharded)
    with pytest.raises(UnreadableFile, match=r"tokenizer\.json is a link that leaves"):
        written(sharded)
