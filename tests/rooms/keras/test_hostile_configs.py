"""Damaged and deceiving model configs, and configs that the weights contradict."""

import copy
import json
import random
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest

from tests.rooms.keras.hostile import FILES, SECONDS, archive, attempt, refused
from tiesurgeon.rooms.keras.config import skeleton

pytestmark = pytest.mark.usefixtures("little_memory")


def config_of(path: Path) -> Any:
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return json.loads(file.attrs["model_config"])
    with zipfile.ZipFile(path) as opened:
        return json.loads(opened.read("config.json"))


def with_config(source: Path, path: Path, config: Any) -> Path:
    text = json.dumps(config)
    if source.suffix == ".h5":
        path.write_bytes(source.read_bytes())
        with h5py.File(path, "r+") as file:
            del file.attrs["model_config"]
            file.attrs.create("model_config", text, dtype=h5py.string_dtype())
        return path
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, text if name == "config.json" else old.read(name))
    return path


def nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield value, key
        if isinstance(item, (dict, list)):
            yield from nodes(item)


NONSENSE: list[Callable[[], Any]] = [
    lambda: None,
    lambda: True,
    lambda: -1,
    lambda: 10**30,
    lambda: 1.5,
    lambda: "nonsense",
    lambda: "",
    list,
    dict,
    lambda: [[[]]],
    lambda: {"class_name": "Dense", "config": {}},
    lambda: {"class_name": "Functional", "config": {"layers": []}},
    lambda: ["dense", 0, 0],
    lambda: "line\nbreak" * 200,
]


@pytest.mark.parametrize("name", FILES)
def test_wrong_types_anywhere_in_the_config(name: str, samples: Path, tmp_path: Path) -> None:
    rng, source = random.Random(7), samples / name
    config = config_of(source)
    for _ in range(250):
        changed = copy.deepcopy(config)
        for _ in range(rng.choice((1, 1, 2))):
            container, key = rng.choice(list(nodes(changed)))
            if rng.random() < 0.15:
                del container[key]
            else:
                container[key] = rng.choice(NONSENSE)()
        attempt(with_config(source, tmp_path / f"model{source.suffix}", changed))


@pytest.mark.parametrize("name", FILES)
def test_swapped_parts_of_the_config(name: str, samples: Path, tmp_path: Path) -> None:
    rng, source = random.Random(11), samples / name
    config = config_of(source)
    for _ in range(60):
        changed = copy.deepcopy(config)
        places = list(nodes(changed))
        (one, a), (other, b) = rng.choice(places), rng.choice(places)
        one[a], other[b] = copy.deepcopy(other[b]), copy.deepcopy(one[a])
        attempt(with_config(source, tmp_path / f"model{source.suffix}", changed))


def test_deep_and_circular_configs(samples: Path, tmp_path: Path) -> None:
    source, path = samples / "autoencoder.keras", tmp_path / "model.keras"
    config = config_of(source)
    level = '{"class_name": "TimeDistributed", "config": {"name": "x", "layer": '
    for depth in (100, 400, 5000):
        text = json.dumps(config).replace('"layers": [', f'"layers": [{level * depth}')
        cut = text.index(level * depth) + len(level * depth)
        deep = text[:cut] + "{}" + "}}" * depth + ", " + text[cut:]
        found = attempt(archive(path, source, config=deep.encode()))
        assert found is None or depth < 5000
    changed = copy.deepcopy(config)
    layers = [layer for layer in changed["config"]["layers"] if layer.get("inbound_nodes")]
    last = layers[-1]["config"]["name"]
    node = layers[0]["inbound_nodes"][0]["args"][0]["config"]
    node["keras_history"] = [last, 0, 0]
    refused(with_config(source, path, changed), "has a loop or a loose end")


def test_a_long_chain_written_backwards_is_read_quickly(tmp_path: Path) -> None:
    """A hundred thousand calls, each before what it depends on."""

    def node(number: int) -> Any:
        history = [f"l{number - 1}", 0, 0]
        tensor = {"class_name": "__keras_tensor__", "config": {"keras_history": history}}
        return {"args": [tensor], "kwargs": {}}

    count = 20_000
    layers: list[Any] = [
        {"class_name": "ReLU", "config": {"name": f"l{n}"}, "inbound_nodes": [node(n)]}
        for n in range(count, 0, -1)
    ]
    layers.append({"class_name": "InputLayer", "config": {"name": "l0"}, "inbound_nodes": []})
    body = {
        "layers": layers,
        "input_layers": ["l0", 0, 0],
        "output_layers": [f"l{count}", 0, 0],
    }
    start = time.process_time()
    graph = skeleton({"class_name": "Functional", "config": body})
    assert [graph.calls[0].layer, graph.calls[-1].layer] == ["l0", f"l{count}"]
    assert time.process_time() - start < SECONDS


# --- shapes that contradict the config -----------------------------------------------------------

CONTRADICTIONS = {
    "units": ("Dense", "units", "kernel", 1),
    "input_dim": ("Embedding", "input_dim", "embeddings", 1),
    "output_dim": ("Embedding", "output_dim", "embeddings", 1),
    "gates": ("LSTM", "units", "kernel", 4),
}


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_shapes_that_contradict_the_config_are_named(
    name: str, suffix: str, samples: Path, tmp_path: Path
) -> None:
    op, key, role, times = CONTRADICTIONS[name]
    source = samples / f"char_lm{suffix}"
    config = config_of(source)
    layer = next(lay for lay in config["config"]["layers"] if lay["class_name"] == op)
    layer["config"][key] += 1
    path = with_config(source, tmp_path / f"model{suffix}", config)
    wanted = str(layer["config"][key] * times)
    weight = f"{layer['config']['name']}/{role}"
    refused(path, rf"weight {weight} has shape \[.*the config of {op} .* asks for .*{wanted}")


def test_too_few_and_too_many_weights(samples: Path, tmp_path: Path) -> None:
    for suffix in (".h5", ".keras"):
        source = samples / f"char_lm{suffix}"
        config = config_of(source)
        dense = next(lay for lay in config["config"]["layers"] if lay["class_name"] == "Dense")
        dense["config"]["use_bias"] = False
        path = with_config(source, tmp_path / f"model{suffix}", config)
        refused(path, "has 2 weights in the file, but its config asks for 1")
