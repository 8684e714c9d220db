"""Two models of any two formats, on the same inputs: how far apart, and where."""

import importlib
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from tests import verified
from tests.verified import BIAS, HEAD, MODELS, TABLE, H, V
from tiesurgeon import cli
from tiesurgeon.errors import (
    CannotRun,
    MissingFramework,
    ProofFailed,
    ShapeMismatch,
    TiesurgeonError,
    UnsupportedFormat,
)
from tiesurgeon.model import Permissions
from tiesurgeon.rooms.keras import run as keras_run
from tiesurgeon.rooms.keras.model import open_model
from tiesurgeon.rooms.savedmodel.conversion import to_savedmodel
from tiesurgeon.verification import verify

Models = Callable[[str], Path]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """`models("lm.onnx")`: the file of `verified.MODELS`, made once."""
    folder = tmp_path_factory.mktemp("verified")

    def get(name: str) -> Path:
        if not (folder / name).exists():
            MODELS[name](folder / name)
        return folder / name

    return get


@pytest.fixture
def here(proof_here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frameworks in this process: a fresh one for each model would take minutes."""

    def ask(script: Path, spec: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        package = script.parts[script.parts.index("rooms") : -1]
        module = importlib.import_module(".".join(("tiesurgeon", *package, script.stem)))
        try:
            with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # as in the process of its own
                patch.setattr(torch, "load", torch.load)  # replaced where nothing is trusted
                patch.setattr(sys, "path", list(sys.path))
                patch.delitem(sys.modules, "model", raising=False)
                answer: dict[str, Any] = module.main(dict(spec))
                return answer
        except Exception as error:
            raise ProofFailed(f"could not be run ({error})") from error

    for name in ("savedmodel.run", "savedmodel.running", "onnx.running", "pytorch.running"):
        monkeypatch.setattr(f"tiesurgeon.rooms.{name}.ask", ask)


pytestmark = pytest.mark.usefixtures("here")


def scripted(path: Path, model: Any) -> Path:
    """As TorchScript, which needs no class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(model).save(path)
    return path


def saved_onnx(path: Path, bias: np.ndarray) -> Path:
    onnx.save(verified.onnx_model(bias), path)
    return path


# --- every format -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(MODELS))
def test_every_format_beside_keras(models: Models, name: str) -> None:
    found = verify(models("lm.keras"), models(name), trust_code=name == "folder")
    assert found.equal
    assert found.max_abs_diff < 1e-6
    shape = (3, 5) if name == "one_size.pt2" else (2, 7)
    assert [(one.name, one.shape) for one in found.inputs] == [("tokens", shape)]
    assert [(one.name, one.shape) for one in found.differences] == [("head", (*shape, V))]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("saved", "lm.onnx"),
        ("lm.onnx", "script.pt"),
        ("lm.pt", "script.pt"),
        ("lm.pt", "any_size.pt2"),
        ("one_size.pt2", "any_size.pt2"),
        ("folder", "lm.onnx"),
    ],
)
def test_formats_beside_each_other(models: Models, a: str, b: str) -> None:
    found = verify(models(a), models(b), trust_code=True)
    assert found.equal
    assert found.differences[0].shape[-1] == V


def test_a_saved_model_with_its_layers(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = keras.layers.TimeDistributed
    monkeypatch.setattr(distributed, "call", distributed.call)  # the export replaces it
    model = open_model(models("lm.keras"), "keras-v3", Permissions())
    (tmp_path / "layers").mkdir()
    to_savedmodel(model, tmp_path / "layers", {}, full=False)
    found = verify(tmp_path / "layers", models("lm.onnx"))
    assert found.equal
    assert [one.name for one in found.inputs] == ["tokens"]
    assert [one.name for one in found.differences] == ["head"]


def test_ids_that_keras_takes_as_floats(models: Models, tmp_path: Path) -> None:
    verified.functional(dtype="float32").save(tmp_path / "floats.keras")
    for name in ("lm.pt", "lm.onnx", "any_size.pt2"):
        assert verify(tmp_path / "floats.keras", models(name)).equal


def test_a_hugging_face_folder(tmp_path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=V, n_positions=7, n_embd=6, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(tmp_path / "a")
    with torch.no_grad():
        model.lm_head.weight[7] *= 2
    model.save_pretrained(tmp_path / "b")
    assert verify(tmp_path / "a", tmp_path / "a").equal
    found = verify(tmp_path / "a", tmp_path / "b")
    assert not found.equal
    assert [one.name for one in found.differences] == ["logits"]


def test_each_model_has_a_process_of_its_own(models: Models) -> None:
    """As it is run, for once: TensorFlow beside ONNX Runtime, from the command line."""
    pair = [str(models(name)) for name in ("lm.keras", "lm.onnx")]
    command = [sys.executable, "-m", "tiesurgeon", "verify", *pair]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nequal       at most " in done.stdout


# --- what differs -----------------------------------------------------------------------------


def test_it_says_where_they_differ(models: Models, tmp_path: Path) -> None:
    other = BIAS.copy()
    other[7] += 0.5
    found = verify(models("lm.keras"), saved_onnx(tmp_path / "other.onnx", other))
    assert not found.equal
    assert found.max_abs_diff == pytest.approx(0.5, abs=1e-5)
    worst = found.worst
    assert worst.index[-1] == 7
    assert worst.b.real - worst.a.real == pytest.approx(0.5, abs=1e-5)


def test_atol_is_the_bar(models: Models, tmp_path: Path) -> None:
    other = saved_onnx(tmp_path / "other.onnx", BIAS + np.float32(1e-3))
    assert not verify(models("lm.onnx"), other).equal
    assert verify(models("lm.onnx"), other, atol=2e-3).equal


def test_nan_in_one_only_is_a_difference(models: Models, tmp_path: Path) -> None:
    other = BIAS.copy()
    other[5] = np.nan
    path = saved_onnx(tmp_path / "nan.onnx", other)
    found = verify(models("lm.onnx"), path)
    assert (found.equal, found.max_abs_diff, found.worst.index[-1]) == (False, np.inf, 5)
    found = verify(path, path)
    assert found.equal
    assert found.warnings == ("logits is NaN or infinite in 14 of 154 places in the first",)


def test_outputs_of_other_shapes_are_refused(models: Models, tmp_path: Path) -> None:
    wide = nn.Sequential(nn.Embedding(V, H), nn.Linear(H, 13))
    with pytest.raises(ShapeMismatch, match=r"head is \(2, 7, 11\) in the first and \(2, 7, 13\)"):
        verify(models("lm.keras"), scripted(tmp_path / "wide.pt", wide))


class Named(nn.Module):
    """Gives its outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.lm = verified.module()

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Not in the order of names."""
        logits = self.lm(ids)
        return {"spare": logits * 2, "logits": logits}


class Twice(nn.Module):
    """Gives two outputs without a name."""

    def __init__(self) -> None:
        super().__init__()
        self.lm = verified.module()

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits twice."""
        logits = self.lm(ids)
        return logits, logits


def test_outputs_are_matched_by_name(models: Models, tmp_path: Path) -> None:
    found = verify(models("lm.onnx"), scripted(tmp_path / "named.pt", Named()))
    assert found.equal
    assert [one.name for one in found.differences] == ["logits"]
    assert found.warnings == ("not compared, as only one of them gives it: spare",)


class Wide(Twice):
    """Gives a second output of another width."""

    def __init__(self, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The wide one first or last."""
        logits = self.lm(ids)
        wide = torch.cat([logits, logits], -1)
        return (wide, logits) if self.is_first else (logits, wide)


def test_outputs_without_names_are_matched_by_shape(tmp_path: Path) -> None:
    first, last = (scripted(tmp_path / f"{n}.pt", Wide(n)) for n in (True, False))
    found = verify(first, last)
    assert found.equal
    assert found.warnings == (
        "their names differ, so outputs were matched by shape: 0 with 1, 1 with 0",
    )


def test_outputs_that_cannot_be_matched_are_refused(models: Models, tmp_path: Path) -> None:
    with pytest.raises(ShapeMismatch, match=r"gives logits \(2, 7, 11\) and the second an output"):
        verify(models("lm.onnx"), scripted(tmp_path / "twice.pt", Twice()))


def test_where_no_keras_opens_a_file_its_modern_form_runs(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = keras_run.outputs

    def outputs(path: Path, *args: Any) -> tuple[Any, ...]:
        if path.name == "lm.h5":
            raise ProofFailed("could not be run") from RuntimeError("time_major")
        return right(path, *args)

    monkeypatch.setattr(keras_run, "outputs", outputs)
    found = verify(models("lm.h5"), models("lm.onnx"))
    assert found.equal
    assert found.warnings == (
        f"no Keras here opens {models('lm.h5')}: its modern form was run instead (time_major)",
    )


# --- given inputs -----------------------------------------------------------------------------


def given(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("name", ["ids", "something"])
def test_given_inputs_are_what_both_get(models: Models, tmp_path: Path, name: str) -> None:
    inputs = given(tmp_path / "i.npz", **{name: np.full((1, 4), 10)})
    found = verify(models("lm.onnx"), models("lm.keras"), inputs=inputs)
    assert found.equal
    assert [(one.name, one.shape, one.dtype) for one in found.inputs] == [("ids", (1, 4), "int64")]
    assert found.differences[0].a == pytest.approx(
        (TABLE[10] @ HEAD.T + BIAS)[found.differences[0].index[-1]], rel=1e-5
    )


def test_given_inputs_for_modules(models: Models, tmp_path: Path) -> None:
    inputs = given(tmp_path / "i.npz", ids=np.full((1, 4), 10))
    assert verify(models("lm.pt"), models("script.pt"), inputs=inputs).inputs[0].shape == (1, 4)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"ids": np.full((1, 4), 0.5)}, "lm.onnx: input ids takes int64, and what is given has"),
        ({"ids": np.full((1, 4), V)}, "lm.onnx: ONNX Runtime says: .*out of data bounds"),
        ({"a": np.zeros(3), "b": np.zeros(3)}, "lm.onnx: it takes ids int64"),
        ({"ids": np.array([{}], object)}, "takes an .npz file of plain arrays"),
    ],
)
def test_inputs_that_do_not_fit(models: Models, tmp_path: Path, arrays: Any, says: str) -> None:
    inputs = given(tmp_path / "i.npz", **arrays)
    with pytest.raises(TiesurgeonError, match=says):
        verify(models("lm.onnx"), models("lm.keras"), inputs=inputs)


def test_inputs_that_are_not_there(models: Models, tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="there is no such file"):
        verify(models("lm.onnx"), models("lm.onnx"), inputs=tmp_path / "none.npz")


# --- code is not run unasked ------------------------------------------------------------------


def test_a_model_py_runs_only_with_trust(models: Models) -> None:
    folder = models("folder")
    (folder / "it_ran").unlink(missing_ok=True)
    with pytest.raises(UnsupportedFormat, match=r"Python code in model\.py; give --trust-code"):
        verify(models("lm.onnx"), folder)
    assert not (folder / "it_ran").exists()


def test_classes_of_a_pickle_need_trust(models: Models, tmp_path: Path) -> None:
    torch.save(Named(), tmp_path / "named.pt")
    with pytest.raises(UnsupportedFormat, match=r"it needs .*Named; give --trust-code"):
        verify(models("lm.onnx"), tmp_path / "named.pt")
    assert verify(models("lm.onnx"), tmp_path / "named.pt", trust_code=True).equal


def test_a_lambda_is_not_run(models: Models, tmp_path: Path) -> None:
    x = keras.Input((3,), name="x")
    keras.Model(x, keras.layers.Lambda(lambda y: y, name="same")(x)).save(tmp_path / "l.keras")
    with pytest.raises(CannotRun, match="same is a Lambda, whose code is not run"):
        verify(tmp_path / "l.keras", models("lm.onnx"))


def test_a_signature_that_reaches_out_is_not_run(models: Models, tmp_path: Path) -> None:
    import tensorflow as tf

    class Reader(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, "ids")])
        def serve(self, ids: Any) -> Any:
            read = tf.strings.length(tf.io.read_file("/etc/hostname"))
            return {"y": tf.cast(ids, tf.float32) + tf.cast(read, tf.float32)}

    reader = Reader()
    tf.saved_model.save(reader, str(tmp_path / "reader"), signatures=reader.serve)
    with pytest.raises(UnsupportedFormat, match=r"reaches beyond it \(ReadFile\)"):
        verify(tmp_path / "reader", models("lm.onnx"))


def test_a_graph_of_tensorflow_1_is_not_run(models: Models, tmp_path: Path) -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        table = v1.get_variable("w", initializer=np.eye(3, dtype="f4"), use_resource=True)
        session.run(v1.global_variables_initializer())
        y = tf.matmul(x, table)
        v1.saved_model.simple_save(session, str(tmp_path / "v1"), {"x": x}, {"y": y})
    with pytest.raises(UnsupportedFormat, match="TensorFlow 1"):
        verify(tmp_path / "v1", models("lm.onnx"))


@pytest.mark.parametrize(
    ("name", "room", "says"),
    [
        ("lm.keras", "keras.run", "Keras"),
        ("lm.onnx", "onnx.running", "ONNX Runtime"),
        ("lm.pt", "pytorch.running", "torch"),
    ],
)
def test_a_framework_that_is_not_here(
    models: Models, monkeypatch: pytest.MonkeyPatch, name: str, room: str, says: str
) -> None:
    monkeypatch.setattr(f"tiesurgeon.rooms.{room}.is_installed", lambda *_: False)
    with pytest.raises(MissingFramework, match=f"run by {says}, which is not installed"):
        verify(models(name), models("lm.h5") if name != "lm.keras" else models("lm.onnx"))


# --- the command line -------------------------------------------------------------------------


def run(*args: Any) -> Result:
    return CliRunner().invoke(cli.main, ["verify", *map(str, args)], prog_name="tiesurgeon")


def test_equal_models_exit_with_0(models: Models) -> None:
    result = run(models("lm.onnx"), models("script.pt"))
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == f"a           {models('lm.onnx')} (onnx)"
    assert lines[1] == f"b           {models('script.pt')} (torchscript)"
    assert lines[2] == "input       ids  int64 (2, 7)  made with seed 0"
    assert lines[3].startswith("output      logits  (2, 7, 11)  ")
    assert lines[4].startswith("equal       at most ")
    assert lines[4].endswith(" apart, within 0.0001")


def test_beyond_atol_is_one_line_and_status_1(models: Models, tmp_path: Path) -> None:
    other = BIAS.copy()
    other[7] += 0.5
    path = saved_onnx(tmp_path / "other.onnx", other)
    result = run(models("lm.onnx"), path)
    assert result.exit_code == 1
    assert "equal" not in result.stdout
    [line] = result.stderr.splitlines()
    assert line.startswith(
        "Error: outputs differ by 0.5, expected at most 0.0001 (--atol): logits["
    )
    assert run(models("lm.onnx"), path, "--atol", "0.6").exit_code == 0


def test_json_is_the_documented_shape(models: Models, tmp_path: Path) -> None:
    other = BIAS.copy()
    other[7] = np.nan
    path = saved_onnx(tmp_path / "other.onnx", other)
    result = run(models("lm.onnx"), path, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout, parse_constant=pytest.fail)
    assert isinstance(found["outputs"][0].pop("a"), float)
    assert found == {
        "schema": 1,
        "a": str(models("lm.onnx")),
        "b": str(path),
        "compared": "outputs",
        "inputs": [{"name": "ids", "shape": [2, 7], "dtype": "int64"}],
        "outputs": [
            {
                "name": "logits",
                "shape": [2, 7, V],
                "max_abs_diff": "Infinity",
                "max_rel_diff": "Infinity",
                "index": [0, 0, 7],
                "b": "NaN",
            }
        ],
        "missing": [],
        "max_abs_diff": "Infinity",
        "atol": 1e-4,
        "equal": False,
        "warnings": [],
    }
