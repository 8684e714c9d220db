"""Exported programs that are damaged, or made to deceive: one line each, and nothing allocated."""

import json
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tiesurgeon.errors import TiesurgeonError, UnreadableFile, UnsupportedFormat
from tiesurgeon.rooms.pytorch.exported import read_exported

MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"


def changed(
    source: Path, output: Path, member: str, change: Callable[[Any], object] | None
) -> Path:
    """The archive with a JSON member changed in place, or left out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(output, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith(member):
                if change is None:
                    continue
                found = json.loads(data)
                change(found)
                data = json.dumps(found).encode()
            new.writestr(name, data)
    return output


def graph(found: dict) -> dict:
    return found["graph_module"]["graph"]


def specs(found: dict) -> list:
    return found["graph_module"]["signature"]["input_specs"]


def entry(found: dict) -> dict:
    return found["config"]["embed.weight"]


def meta(found: dict) -> dict:
    return entry(found)["tensor_meta"]


HOSTILE: dict[str, tuple[str, Callable[[Any], object] | None, str]] = {
    "no program": (MODEL, None, "holds no exported program"),
    "no weights": (WEIGHTS, None, "is missing"),
    "no member": ("weights/weight_0", None, "is missing"),
    "no graph": (MODEL, lambda f: f.pop("graph_module"), "no 'graph_module'"),
    "other schema": (MODEL, lambda f: f["schema_version"].update(major=9), "schema version 9"),
    "fewer specs": (MODEL, lambda f: specs(f).pop(), "its signature names"),
    "other name": (
        MODEL,
        lambda f: specs(f)[0]["parameter"]["arg"].update(name="p_other"),
        "says otherwise",
    ),
    "twice": (
        MODEL,
        lambda f: specs(f)[1]["parameter"].update(parameter_name="embed.weight"),
        "twice",
    ),
    "unknown kind": (MODEL, lambda f: specs(f).__setitem__(0, {}), "no known kind"),
    "a cycle": (MODEL, lambda f: graph(f)["nodes"].reverse(), "before it is computed"),
    "computed twice": (
        MODEL,
        lambda f: graph(f)["nodes"].append(graph(f)["nodes"][0]),
        "twice",
    ),
    "no operator": (MODEL, lambda f: graph(f)["nodes"][0].pop("target"), "no operator"),
    "output from nowhere": (
        MODEL,
        lambda f: graph(f).update(outputs=[{"as_tensor": {"name": "nothing"}}]),
        "'nothing' before",
    ),
    "weight not stored": (WEIGHTS, lambda f: f["config"].pop("embed.weight"), "no such tensor"),
    "unknown dtype": (WEIGHTS, lambda f: meta(f).update(dtype=99), "dtype number 99"),
    "unhashable dtype": (WEIGHTS, lambda f: meta(f).update(dtype=[7]), "exported program"),
    "sparse": (WEIGHTS, lambda f: meta(f).update(layout=1), "layout number 1"),
    "pickled": (WEIGHTS, lambda f: entry(f).update(use_pickle=True), "pickle"),
    "huge": (WEIGHTS, lambda f: meta(f)["sizes"].__setitem__(0, {"as_int": 1 << 60}), "cut short"),
    "negative": (WEIGHTS, lambda f: meta(f)["sizes"].__setitem__(0, {"as_int": -1}), "below zero"),
    "symbolic": (WEIGHTS, lambda f: meta(f)["sizes"].__setitem__(0, {"as_expr": {}}), "no number"),
    "beyond": (WEIGHTS, lambda f: meta(f).update(storage_offset={"as_int": 2}), "cut short"),
    "fewer strides": (WEIGHTS, lambda f: meta(f)["strides"].pop(), "strides"),
    "no path": (WEIGHTS, lambda f: entry(f).update(path_name=3), "neither where"),
    "out of the folder": (WEIGHTS, lambda f: entry(f).update(path_name="../../x"), "is missing"),
    "no object": (WEIGHTS, lambda f: f.update(config=[]), "lists no tensors"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_each_is_refused_in_one_line(exports: Path, tmp_path: Path, name: str) -> None:
    member, change, words = HOSTILE[name]
    path = changed(exports / "lm.pt2", tmp_path / "bad.pt2", member, change)
    tracemalloc.start()
    with pytest.raises((UnreadableFile, UnsupportedFormat), match=words) as caught:
        read_exported(path)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_no_truncation_gets_through(exports: Path, tmp_path: Path) -> None:
    data = (exports / "auto.pt2").read_bytes()
    path = tmp_path / "cut.pt2"
    for length in range(0, len(data), 151):
        path.write_bytes(data[:length])
        with pytest.raises(UnreadableFile):
            read_exported(path)


def test_flipped_bytes_of_the_program_raise_nothing_else(exports: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(exports / "auto.pt2") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    [name] = [name for name in members if name.endswith(MODEL)]
    path = tmp_path / "flipped.pt2"
    for place in range(0, len(members[name]), 37):
        data = bytearray(members[name])
        data[place] = data[place] ^ 0x15
        with zipfile.ZipFile(path, "w") as archive:
            for other, content in members.items():
                archive.writestr(other, bytes(data) if other == name else content)
        with suppress(TiesurgeonError):
            read_exported(path)


def test_the_older_layout_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "old.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("version", "8.2")
    with pytest.raises(UnsupportedFormat, match=r"up to 2\.7"):
        read_exported(path)


def test_a_compiled_copy_is_not_left_behind(exports: Path, tmp_path: Path) -> None:
    path = tmp_path / "compiled.pt2"
    path.write_bytes((exports / "lm.pt2").read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("lm/data/aotinductor/model/code.so", b"")
    with pytest.raises(TiesurgeonError, match="AOTInductor"):
        read_exported(path).document.tie("embed.weight", "decoder.weight", None)
