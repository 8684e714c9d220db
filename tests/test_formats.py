"""Files are recognised by what is in them, whatever their name; bad ones in one line."""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from tiesurgeon.errors import TiesurgeonError, UnreadableFile, UnsupportedFormat
from tiesurgeon.formats import FORMATS, recognise


def zipped(**members: bytes | str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            # Without the time of day: the bytes name the tests, alike in every worker.
            archive.writestr(
                zipfile.ZipInfo(name.replace("__", "/").replace("_DOT_", ".")), content
            )
    return buffer.getvalue()


def hdf5(path: Path, userblock: int = 0, **attributes: str) -> Path:
    with h5py.File(path, "w", userblock_size=userblock) as file:
        file.attrs.update(attributes)
    return path


@pytest.mark.parametrize("name", ["m.h5", "m.keras", "m.pt", "m"])
def test_keras_files_are_known_whatever_their_name(tmp_path: Path, name: str) -> None:
    assert recognise(hdf5(tmp_path / name, model_config="{}")).name == "keras-h5"
    assert recognise(hdf5(tmp_path / name)).name == "keras-weights-h5"
    (tmp_path / name).write_bytes(zipped(config_DOT_json="{}"))
    assert recognise(tmp_path / name).name == "keras-v3"


@pytest.mark.parametrize("userblock", [512, 1024, 4096])
def test_an_hdf5_signature_may_stand_further_on(tmp_path: Path, userblock: int) -> None:
    path = hdf5(tmp_path / "m.h5", userblock, model_config="{}")
    assert not path.read_bytes().startswith(b"\x89HDF")
    assert recognise(path).name == "keras-h5"


def test_the_samples_are_recognised(samples: Path) -> None:
    found = {path.name: recognise(path).name for path in samples.glob("*.h5")}
    found |= {path.name: recognise(path).name for path in samples.glob("*.keras")}
    assert found["char_lm.h5"] == "keras-h5"
    assert found["char_lm.keras"] == "keras-v3"
    assert len(found) > 5


def test_every_recognised_format_is_read_by_a_room(root: Path) -> None:
    rooms = {known.room for known in FORMATS if known.room}
    assert rooms
    assert all((root / "tiesurgeon" / "rooms" / room / "read.py").exists() for room in rooms)


TORCH_LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(1001)
SAFETENSORS = (len(b'{"a":1}')).to_bytes(8, "little") + b'{"a":1}'


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (zipped(m__data_DOT_pkl=b"x", m__version="3"), "torch-module"),
        (zipped(m__data_DOT_pkl=b"x", m__constants_DOT_pkl=b"x"), "torchscript"),
        (zipped(m__models__model_DOT_json="{}"), "torch-export"),
        (TORCH_LEGACY, "torch-module"),
        (SAFETENSORS, "safetensors"),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.6.0:\xff\x01" + bytes(64), "onnx"),
    ],
)
def test_models_of_other_frameworks_go_by_their_content(
    tmp_path: Path, content: bytes, name: str
) -> None:
    path = tmp_path / "model.h5"
    path.write_bytes(content)
    assert recognise(path).name == name


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"GGUF\x03\0\0\0" + bytes(64), "GGUF"),
        (b"\x1c\0\0\0TFL3" + bytes(64), "TensorFlow Lite"),
        (b'{"format": "layers-model", "modelTopology": {}}', "TensorFlow.js"),
        (b'{"class_name": "Functional", "config": {}}', "--config"),
    ],
)
def test_other_models_are_refused_by_name(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "model.h5"
    path.write_bytes(content)
    with pytest.raises(UnsupportedFormat) as caught:
        recognise(path)
    assert said in one_line(caught.value, path)


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["saved_model.pb", "variables"], "savedmodel"),
        (["config.json", "model.safetensors"], "huggingface"),
    ],
)
def test_folders_go_by_what_they_hold(tmp_path: Path, names: list[str], name: str) -> None:
    for member in names:
        (tmp_path / member).write_text("{}")
    assert recognise(tmp_path).name == name


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["adapter_config.json", "adapter_model.safetensors"], "a PEFT adapter"),
        (["checkpoint", "model.index"], "a TensorFlow checkpoint"),
    ],
)
def test_other_folders_are_refused_by_name(tmp_path: Path, names: list[str], said: str) -> None:
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UnsupportedFormat) as caught:
        recognise(tmp_path)
    assert said in one_line(caught.value, tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"hello", "not a model file; expected a Keras model"),
        (bytes(10_000), "not a model file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"\x1f\x8b\x08" + bytes(99), "unpack it first"),
        (zipped(a_DOT_npy=b"x"), "NumPy arrays"),
        (zipped(a_DOT_txt=b"x"), "not a model file"),
        (zipped(config_DOT_json="{}")[:-30], "not fully downloaded"),
        (pickle.dumps({"a": 1}), "a Python pickle"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "not fully downloaded"),
    ],
)
def test_what_is_no_model_is_said(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile) as caught:
        recognise(path)
    assert said in one_line(caught.value, path)


def test_what_is_not_there_or_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="no such file"):
        recognise(tmp_path / "missing.h5")
    with pytest.raises(UnreadableFile, match="a folder without a model in it"):
        recognise(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UnreadableFile, match="neither a file nor a folder"):
        recognise(pipe)


@pytest.mark.parametrize("name", ["char_lm.h5", "char_lm.keras"])
def test_a_sample_cut_anywhere_is_refused_or_read_but_never_crashes(
    samples: Path, tmp_path: Path, name: str
) -> None:
    from tiesurgeon.inspection import inspect

    whole = (samples / name).read_bytes()
    path = tmp_path / name
    for part in range(1, 40):
        path.write_bytes(whole[: len(whole) * part // 40])
        with pytest.raises(TiesurgeonError) as caught:
            inspect(path)
        one_line(caught.value, path)


def test_a_npy_file_and_json_of_something_else_are_no_models(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(UnreadableFile, match="a NumPy array"):
        recognise(tmp_path / "a.npy")
    (tmp_path / "a.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(UnreadableFile, match="not a model file"):
        recognise(tmp_path / "a.json")


def one_line(error: Exception, path: Path) -> str:
    text = str(error)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text
