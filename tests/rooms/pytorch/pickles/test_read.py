"""What is in a file: formats, names, kinds, ties and aliases, dtypes; without running anything."""

import contextlib
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.rooms.pytorch.pickles.files import equal_language_model, saved, views, with_pickle
from tests.rooms.pytorch.pickles.torch_modules import Autoencoder, LanguageModel
from tiesurgeon.errors import TiesurgeonError, UnreadableFile, UnsupportedFormat
from tiesurgeon.find import ties
from tiesurgeon.graph import Kind
from tiesurgeon.rooms.pytorch.containers import open_container
from tiesurgeon.rooms.pytorch.pickles import read_pickled
from tiesurgeon.rooms.pytorch.pickles.emit import encode
from tiesurgeon.rooms.pytorch.pickles.machine import decode
from tiesurgeon.rooms.pytorch.pickles.nodes import Global, Persistent

LEGACY = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def kinds(path: Path) -> dict[str, Kind]:
    return {name: view.variable.kind for name, view in views(read_pickled(path)).items()}


@LEGACY
def test_a_module(legacy: bool, tmp_path: Path) -> None:
    model = equal_language_model(padding_idx=2)
    found = read_pickled(saved(model, tmp_path / "lm.pt", legacy=legacy))
    assert found.format == "torch-module"
    assert found.graph.op == "LanguageModel"
    assert found.classes == ("tests.rooms.pytorch.pickles.torch_modules.LanguageModel",)
    assert [(layer.name, layer.op) for layer in found.graph.layers] == [
        ("embed", "Embedding"),
        ("rnn", "LSTM"),
        ("decoder", "Linear"),
    ]
    embed = found.graph.layer("embed")
    assert (embed.config["num_embeddings"], embed.config["padding_idx"]) == (11, 2)
    assert list(views(found)) == list(model.state_dict())
    for name, view in views(found).items():
        np.testing.assert_array_equal(view.load(), model.state_dict()[name].numpy())
        assert view.variable.trainable


def test_leaves_without_tensors_are_layers_and_branches_are_not(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 11), nn.Sequential(nn.ReLU()))
    found = read_pickled(saved(model, tmp_path / "m.pt"))
    assert [(layer.name, layer.op) for layer in found.graph.layers] == [
        ("0", "Linear"),
        ("1.0", "ReLU"),
    ]
    assert found.classes == ()


def test_buffers_and_frozen_parameters(tmp_path: Path) -> None:
    model = nn.BatchNorm1d(3)
    model.register_buffer("left_out", torch.ones(2), persistent=False)
    model.weight.requires_grad_(False)
    path = saved(model, tmp_path / "m.pt")
    assert kinds(path) == {
        "weight": "weight",
        "bias": "weight",
        "running_mean": "buffer",
        "running_var": "buffer",
        "num_batches_tracked": "buffer",
    }
    found = views(read_pickled(path))
    assert not found["weight"].variable.trainable
    assert found["bias"].variable.trainable
    assert not found["running_mean"].variable.trainable


def test_one_parameter_is_a_tie_and_one_storage_an_alias(tmp_path: Path) -> None:
    model = equal_language_model()
    model.decoder.weight = model.embed.weight
    [tie] = ties(read_pickled(saved(model, tmp_path / "tie.pt")).graph)
    assert (tie.source, tie.target, tie.kind) == ("embed.weight", "decoder.weight", "tie")
    model.decoder.weight = nn.Parameter(model.embed.weight.data)
    [tie] = ties(read_pickled(saved(model, tmp_path / "alias.pt")).graph)
    assert (tie.source, tie.target, tie.kind) == ("embed.weight", "decoder.weight", "alias")


def test_a_transposed_alias(tmp_path: Path) -> None:
    model = Autoencoder()
    model.decoder.weight = nn.Parameter(model.encoder.weight.data.t())
    found = views(read_pickled(saved(model, tmp_path / "m.pt")))
    assert found["decoder.weight"].perm == (1, 0)
    assert found["decoder.weight"].variable.storage is found["encoder.weight"].variable.storage
    assert found["decoder.weight"].variable is not found["encoder.weight"].variable


def test_a_module_under_two_names_has_the_same_variables(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.ReLU())
    model.append(model[0])
    found = views(read_pickled(saved(model, tmp_path / "m.pt")))
    assert list(found) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert found["0.weight"].variable is found["2.weight"].variable


def test_a_module_that_holds_itself_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    model._modules["own"] = model
    with pytest.raises(UnreadableFile, match="its module 'own' holds itself"):
        read_pickled(saved(model, tmp_path / "m.pt"))


@LEGACY
def test_a_state_dict(legacy: bool, tmp_path: Path) -> None:
    state = equal_language_model().state_dict()
    found = read_pickled(saved(state, tmp_path / "sd.pt", legacy=legacy))
    assert found.format == "torch-state-dict"
    assert found.classes == ()
    assert list(views(found)) == list(state)
    assert found.graph.layer("embed").op == ""
    for name, view in views(found).items():
        np.testing.assert_array_equal(view.load(), state[name].numpy())


def test_a_tied_class_leaves_an_alias_in_its_state_dict(tmp_path: Path) -> None:
    model = equal_language_model()
    model.decoder.weight = model.embed.weight
    same = model.state_dict()
    same["embed.weight"] = same["decoder.weight"]  # one tensor object changes nothing
    for state in (model.state_dict(), same):
        [tie] = ties(read_pickled(saved(state, tmp_path / "sd.pt")).graph)
        assert tie.kind == "alias"


def test_a_state_dict_may_be_nested_one_level(tmp_path: Path) -> None:
    parts = {"encoder": nn.Linear(2, 3).state_dict(), "decoder": nn.Linear(3, 2).state_dict()}
    found = read_pickled(saved(parts, tmp_path / "sd.pt"))
    assert found.format == "torch-state-dict"
    assert list(views(found)) == [
        "encoder.weight",
        "encoder.bias",
        "decoder.weight",
        "decoder.bias",
    ]


def checkpoint(**more: Any) -> dict[str, Any]:
    model = nn.Linear(3, 11)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    return {
        "epoch": 7,
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng_state": torch.get_rng_state(),
        "best": torch.tensor(0.5),
        **more,
    }


@LEGACY
def test_a_checkpoint(legacy: bool, tmp_path: Path) -> None:
    path = saved(checkpoint(), tmp_path / "c.pt", legacy=legacy)
    assert read_pickled(path).format == "torch-checkpoint"
    slots = ("step", "exp_avg", "exp_avg_sq")
    expected: dict[str, Kind] = {"weight": "weight", "bias": "weight"}
    expected |= {f"optimizer.state.{i}.{slot}": "optimizer slot" for i in (0, 1) for slot in slots}
    assert kinds(path) == expected | {"rng_state": "seed", "best": "buffer"}


def test_several_sets_of_weights_keep_their_paths(tmp_path: Path) -> None:
    found = kinds(saved(checkpoint(ema=nn.Linear(3, 11).state_dict()), tmp_path / "c.pt"))
    weights = [name for name, kind in found.items() if kind == "weight"]
    assert weights == ["state_dict.weight", "state_dict.bias", "ema.weight", "ema.bias"]


def test_prefixes_of_data_parallel_are_kept(tmp_path: Path) -> None:
    state = nn.DataParallel(nn.Linear(3, 11)).state_dict()
    found = kinds(saved({"model": state, "epoch": 1}, tmp_path / "c.pt"))
    assert list(found) == ["module.weight", "module.bias"]


def test_a_checkpoint_like_lightnings(tmp_path: Path) -> None:
    inside = checkpoint()
    path = saved(
        {
            "epoch": 1,
            "pytorch-lightning_version": "2.6.0",
            "state_dict": OrderedDict({f"net.{k}": v for k, v in inside["state_dict"].items()}),
            "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": 1}}},
            "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.1)}},
            "optimizer_states": [inside["optimizer"]],
            "lr_schedulers": [],
            "hyper_parameters": {"width": 3},
        },
        tmp_path / "l.ckpt",
    )
    found = kinds(path)
    assert list(found)[:2] == ["net.weight", "net.bias"]
    assert found["optimizer_states.0.state.1.exp_avg"] == "optimizer slot"
    assert found["callbacks.ModelCheckpoint.best_model_score"] == "buffer"


def test_a_module_beside_an_optimizer_that_was_pickled_itself(tmp_path: Path) -> None:
    model = nn.Linear(3, 11)
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    path = saved({"net": model, "opt": optimizer}, tmp_path / "c.pt")
    assert kinds(path) == {
        "weight": "weight",
        "bias": "weight",
        "opt.state.0.momentum_buffer": "optimizer slot",
        "opt.state.1.momentum_buffer": "optimizer slot",
    }
    assert read_pickled(path).classes == ()


def test_a_file_of_an_optimizer_alone(tmp_path: Path) -> None:
    assert set(kinds(saved(checkpoint()["optimizer"], tmp_path / "o.pt")).values()) == {
        "optimizer slot"
    }


def test_loose_tensors(tmp_path: Path) -> None:
    assert kinds(saved([torch.ones(2, 3), torch.ones(5)], tmp_path / "l.pt")) == {
        "0": "weight",
        "1": "weight",
    }
    assert kinds(saved(torch.ones(2, 3), tmp_path / "t.pt")) == {"tensor": "weight"}


@pytest.mark.parametrize("thing", [{"epoch": 3}, [1, 2], "text", OrderedDict(), None])
def test_a_pickle_without_weights_is_refused(thing: Any, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormat, match="holds no weights"):
        read_pickled(saved(thing, tmp_path / "n.pt"))


DTYPES = (
    "float64 float32 float16 bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz "
    "complex64 complex128 int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool"
).split()


@LEGACY
@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_is_read_to_the_bit(name: str, legacy: bool, tmp_path: Path) -> None:
    tensor = torch.arange(6).reshape(2, 3).to(getattr(torch, name))
    found = views(read_pickled(saved({"w": tensor}, tmp_path / "d.pt", legacy=legacy)))["w"]
    assert found.variable.storage.dtype.name == name
    assert found.variable.kind == ("weight" if "float" in name or "complex" in name else "buffer")
    expected = tensor.contiguous().view(torch.uint8) if name != "bool" else tensor
    loaded = np.ascontiguousarray(found.load())
    assert loaded.view(np.uint8).tobytes() == expected.numpy().tobytes()


def test_views_of_one_storage(tmp_path: Path) -> None:
    whole = torch.arange(35.0).reshape(5, 7)
    parts = {"whole": whole, "rows": whole[2:], "turned": whole.t(), "column": whole[:, 3]}
    found = views(read_pickled(saved(parts, tmp_path / "v.pt")))
    for name, part in parts.items():
        np.testing.assert_array_equal(found[name].load(), part.numpy())
    assert found["turned"].variable.storage is found["whole"].variable.storage


def test_tensors_with_attributes_and_buffers_of_new_kinds(tmp_path: Path) -> None:
    tensor, parameter = torch.ones(2, 3), nn.Parameter(torch.ones(3, 2))
    tensor.note, parameter.note = "a", "b"
    model = nn.Module()
    model.weight = parameter
    model.register_buffer("table", nn.Buffer(tensor))
    assert kinds(saved(model, tmp_path / "m.pt")) == {"weight": "weight", "table": "buffer"}


def test_tensors_without_plain_numbers_are_named_in_a_note(tmp_path: Path) -> None:
    state = {
        "weight": torch.ones(2, 3),
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.ones(2, device="meta"),
    }
    found = read_pickled(saved(state, tmp_path / "s.pt"))
    assert list(views(found)) == ["weight"]
    assert found.notes == (
        "tensors that are not listed: 1 of the kind sparse",
        "tensors that are not listed: 1 of the kind meta (no numbers)",
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantised_tensors_are_listed(tmp_path: Path) -> None:
    tensor = torch.quantize_per_tensor(torch.ones(2, 3), 0.5, 3, torch.qint8)
    found = views(read_pickled(saved({"w": tensor, "x": torch.ones(2)}, tmp_path / "q.pt")))["w"]
    assert found.variable.storage.dtype == np.int8
    assert not found.variable.trainable


def test_reading_imports_no_framework(tmp_path: Path, python_without_frameworks: Any) -> None:
    path = saved(LanguageModel(), tmp_path / "lm.pt")
    result = python_without_frameworks(
        "import sys; from pathlib import Path\n"
        "from tiesurgeon.rooms.pytorch.pickles import read_pickled\n"
        "print(len(read_pickled(Path(sys.argv[1])).graph.layers))\n",
        path,
    )
    assert result.stdout.strip() == "3", result.stderr[-500:]


def changed(path: Path, place: int, value: Any) -> Path:
    """A state dict with one argument of its only tensor replaced."""
    tree = decode(open_container(saved({"w": torch.ones(2, 3)}, path)).pickle)
    record = tree.root["w"]
    arguments = list(record.parts[1])
    arguments[place] = value
    record.parts[1] = tuple(arguments)
    return with_pickle(path, encode(tree.root, 2))


def storage(*value: Any) -> Persistent:
    return Persistent(("storage", *value))


FLOAT = Global("torch", "FloatStorage")
DECEIT = {
    "strides reach out": (3, (3, 100), "ends at byte"),
    "offset reaches out": (1, 1, "ends at byte"),
    "shape reaches out": (2, (2, 4), "ends at byte"),
    "negative stride": (3, (3, -1), "below zero"),
    "negative offset": (1, -1, "below zero"),
    "negative shape": (2, (-2, 3), "below zero"),
    "huge shape": (2, (2**62, 2**62), "ends at byte"),
    "ranks differ": (3, (3,), "dimensions"),
    "no tuple": (2, [2, 3], "no tuple"),
    "numbers that are none": (2, (2, "3"), "below zero"),
    "no storage": (0, 7, "has no storage"),
    "another key": (0, storage(FLOAT, "99", "cpu", 6), "is missing"),
    "another path": (0, storage(FLOAT, "../version", "cpu", 6), "is missing"),
    "more numbers": (0, storage(FLOAT, "0", "cpu", 7), "cut short, or made to deceive"),
    "negative numbers": (0, storage(FLOAT, "0", "cpu", -6), "without a key"),
    "key that is no string": (0, storage(FLOAT, 0, "cpu", 6), "without a key"),
    "unknown dtype": (0, storage(Global("torch", "OddStorage"), "0", "cpu", 6), "not known"),
    "old view": (0, storage(FLOAT, "0", "cpu", 6, ("0", 0, 6)), "before 0.4"),
}


@pytest.mark.parametrize("name", DECEIT)
def test_a_tensor_that_deceives_is_refused(name: str, tmp_path: Path) -> None:
    place, value, words = DECEIT[name]
    with pytest.raises(TiesurgeonError, match=words) as caught:
        read_pickled(changed(tmp_path / "evil.pt", place, value))
    assert "\n" not in str(caught.value)


def test_damaged_pickles_are_read_or_refused(tmp_path: Path) -> None:
    """Bytes changed, cut and doubled at random: a TiesurgeonError or a graph, nothing else."""
    random = np.random.default_rng(7)
    model = equal_language_model()
    things = {"model": model, "state": model.state_dict(), "old": checkpoint()}
    like = saved(things, tmp_path / "m.pt")
    whole = open_container(like).pickle
    read = 0
    for _ in range(150):
        data = bytearray(whole)
        start, length = int(random.integers(len(data))), int(random.integers(1, 9))
        change = random.integers(3)
        if change == 0:
            data[start] = random.integers(256)
        elif change == 1:
            del data[start : start + length]
        else:
            data[start:start] = data[start : start + length]
        with contextlib.suppress(TiesurgeonError):
            path = with_pickle(tmp_path / "x.pt", bytes(data), like)
            for view in views(read_pickled(path)).values():
                view.load()
            read += 1
    assert 0 < read < 150


def test_a_state_dict_with_something_beside_its_tensors(tmp_path: Path) -> None:
    state = {**nn.Linear(2, 3).state_dict(), "options": Namespace(width=3)}
    assert read_pickled(saved(state, tmp_path / "sd.pt")).format == "torch-state-dict"
    state |= {str(number): Namespace() for number in range(3)}
    assert read_pickled(saved(state, tmp_path / "c.pt")).format == "torch-checkpoint"
