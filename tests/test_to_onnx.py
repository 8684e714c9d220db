"""`convert --to onnx` and `--to pt2`: what they prove, what they catch, what they refuse."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from tests.exporter_here import export_here
from tiesurgeon import cli, operations
from tiesurgeon.crossing import to_onnx
from tiesurgeon.errors import (
    MissingFramework,
    ProofFailed,
    TiesurgeonError,
    UnmappedLayer,
    UnsupportedFormat,
)
from tiesurgeon.model import size_on_disk
from tiesurgeon.rooms.onnx.document import OnnxDocument
from tiesurgeon.rooms.pytorch.onnx import export

layers = keras.layers
V, H = 11, 3  # vocabulary, width


@pytest.fixture
def exporter_here(monkeypatch: pytest.MonkeyPatch) -> None:
    export_here(monkeypatch)


def language_model(folder: Path, rows: int = V, width: int = H) -> Path:
    """A tied model: an embedding, an LSTM, a projection with a bias."""
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    embed, out = layers.Embedding(rows, width, name="embed"), layers.Dense(rows, name="out")
    hidden = layers.LSTM(width, return_sequences=True, name="rnn")(embed(tokens))
    model = keras.Model(tokens, out(hidden))
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(random.normal(size=weight.shape))
    out.kernel.assign(embed.embeddings.numpy().T)
    model.save(folder / "untied.keras")
    operations.tie(
        folder / "untied.keras", [("embed", "out")], output=folder / "lm.keras", proof="static"
    )
    (folder / "untied.keras").unlink()
    return folder / "lm.keras"


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_model(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_model(tmp_path_factory.mktemp("large"), 5003, 127)


@pytest.fixture
def lm(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(small, tmp_path / "lm.keras"))


def saved(model: keras.Model, folder: Path) -> Path:
    model.save(folder / "m.keras")
    return folder / "m.keras"


def run(path: Path, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def sizes(path: Path) -> list[int]:
    return [numpy_helper.to_array(one).size for one in onnx.load(path).graph.initializer]


# --- what is proved ------------------------------------------------------------------------------


def test_the_full_proof_of_a_tied_model(lm: Path, exporter_here: None) -> None:
    outcome = operations.convert(lm, "onnx")
    assert outcome.proof.poke is True
    assert outcome.proof.step is None
    assert outcome.proof.max_abs_diff is not None
    assert outcome.proof.max_abs_diff < 1e-5
    assert outcome.warnings == ("an ONNX file is not trained, so no optimizer step was taken",)


def test_a_program_is_poked_and_trained(lm: Path) -> None:
    outcome = operations.convert(lm, "pt2")
    assert outcome.proof.poke is True
    assert outcome.proof.step is True
    assert outcome.proof.max_abs_diff is not None
    assert outcome.proof.max_abs_diff < 1e-5


def test_a_layer_called_twice_is_not_poked_with_a_word(tmp_path: Path, exporter_here: None) -> None:
    dense, x = layers.Dense(3, name="dense"), keras.Input((3,), name="x")
    path = saved(keras.Model(x, dense(dense(x))), tmp_path)
    outcome = operations.convert(path, "onnx")
    assert outcome.proof.poke is None
    [warning] = outcome.warnings
    assert "called several times" in warning


# --- what is caught ------------------------------------------------------------------------------


def test_an_untied_copy_is_caught(
    lm: Path, exporter_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The matrix twice, under a name that nobody knows: outputs are right, and it is not tied."""
    settle = OnnxDocument.settle

    def then_untie(self: Any) -> Any:
        settled = settle(self)
        self.untie(settled[0])
        return settled

    monkeypatch.setattr(OnnxDocument, "settle", then_untie)
    with pytest.raises(ProofFailed, match=r"change of embed\.weight does not show"):
        operations.convert(lm, "onnx")
    assert [path.name for path in lm.parent.iterdir()] == ["lm.keras"]


def _write(path: Path, edit: Any) -> None:
    model = onnx.load(path)
    edit(model)
    onnx.save(model, path)


def _other_numbers(model: Any) -> None:
    [bias] = [one for one in model.graph.initializer if one.name == "out.bias"]
    array = numpy_helper.to_array(bias) + np.float32(1e-3)
    bias.CopyFrom(numpy_helper.from_array(array, bias.name))


def _second_name(model: Any) -> None:
    [table] = [one for one in model.graph.initializer if one.name == "embed.weight"]
    copy = numpy_helper.from_array(numpy_helper.to_array(table), "out.weight")
    model.graph.initializer.append(copy)
    [transpose] = [
        one
        for one in model.graph.node
        if "embed.weight" in one.input[:1] and one.op_type == "Transpose"
    ]
    transpose.input[0] = "out.weight"


def _no_such_operator(model: Any) -> None:
    model.graph.node[0].op_type = "Gathr"


def _nothing_before(model: Any) -> None:
    model.graph.node[-1].input[0] = "nowhere"


@pytest.mark.parametrize(
    ("sabotage", "words"),
    [
        (_other_numbers, "differs by 0.001"),
        (_second_name, "twice"),
        (_no_such_operator, "Gathr"),
        (_nothing_before, "nowhere"),
    ],
)
def test_an_exporter_that_errs_is_caught(
    lm: Path,
    exporter_here: None,
    monkeypatch: pytest.MonkeyPatch,
    sabotage: Any,
    words: str,
) -> None:
    right = export.export

    def wrong(traced: Any, output: Path, **options: Any) -> Any:
        pokes = right(traced, output, **options)
        _write(output, sabotage)
        return pokes if sabotage is not _other_numbers else {}

    monkeypatch.setattr(to_onnx, "export", wrong)
    with pytest.raises(TiesurgeonError, match=words) as caught:
        operations.convert(lm, "onnx", proof="full" if sabotage is _other_numbers else "static")
    assert len(str(caught.value).splitlines()) == 1
    assert [path.name for path in lm.parent.iterdir()] == ["lm.keras"]


# --- what is written -----------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["gemm", "activation"])
def test_the_size_is_that_of_one_copy(
    large: Path, tmp_path: Path, exporter_here: None, head: Any
) -> None:
    output = tmp_path / "lm.onnx"
    outcome = operations.convert(large, "onnx", output=output, proof="static", onnx_head=head)
    one_copy = 4 * outcome.parameters[0]
    assert output.stat().st_size < 1.02 * one_copy
    assert sizes(output).count(5003 * 127) == 1


def test_names_are_those_of_the_model(lm: Path, exporter_here: None) -> None:
    operations.convert(lm, "onnx", proof="static")
    graph = onnx.load(lm.with_name("lm.onnx")).graph
    assert [one.name for one in graph.input] == ["tokens"]
    assert [one.name for one in graph.output] == ["out"]
    assert {one.name for one in graph.initializer} >= {
        "embed.weight", "out.bias", "rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_l0",
    }  # fmt: skip


def test_outputs_of_one_layer_have_names_of_their_own(tmp_path: Path, exporter_here: None) -> None:
    x = keras.Input((7, 5), name="x")
    path = saved(keras.Model(x, layers.LSTM(3, return_state=True, name="rnn")(x)), tmp_path)
    operations.convert(path, "onnx", proof="static")
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert [one.name for one in graph.output] == ["rnn", "rnn_1", "rnn_2"]


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Conv1D", "AveragePooling1D", "MaxPooling1D"])
def test_same_padding_holds_for_every_length(
    tmp_path: Path, exporter_here: None, kind: str, stride: int
) -> None:
    x = keras.Input((None, 5), name="x")
    own: dict[str, Any] = {"filters": 3, "kernel_size": 4} if kind == "Conv1D" else {"pool_size": 4}
    layer = getattr(layers, kind)(strides=stride, padding="same", name="layer", **own)
    model = keras.Model(x, layer(x))
    operations.convert(saved(model, tmp_path), "onnx", proof="static")
    for steps in range(4, 12):
        array = np.random.default_rng(steps).standard_normal((3, steps, 5)).astype("f4")
        [got] = run(tmp_path / "m.onnx", x=array)
        np.testing.assert_allclose(got, np.asarray(model(array)), atol=1e-5)


def test_what_protobuf_cannot_hold_stands_beside_the_file(
    large: Path, tmp_path: Path, exporter_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_onnx, "_INSIDE", 100)
    output, data = tmp_path / "lm.onnx", tmp_path / "lm.onnx.data"
    outcome = operations.convert(large, "onnx", output=output)
    assert 4 * outcome.parameters[0] < data.stat().st_size < 1.02 * 4 * outcome.parameters[0]
    assert outcome.bytes[1] == size_on_disk(output) > data.stat().st_size
    assert outcome.proof.poke is True
    [logits] = run(output, tokens=np.zeros((2, 7), "int32"))
    assert logits.shape == (2, 7, 5003)


def cli_run(*args: Any) -> tuple[int, str]:
    found = CliRunner().invoke(cli.main, [str(arg) for arg in args])
    return found.exit_code, found.output


def test_options_of_the_command_line(lm: Path, exporter_here: None) -> None:
    command = ["convert", lm, "--to", "onnx", "--proof", "static", "--opset", 20]
    assert cli_run(*command, "--onnx-head", "activation")[0] == 0
    model = onnx.load(lm.with_name("lm.onnx"))
    assert [one.version for one in model.opset_import if not one.domain] == [20]
    assert "Gemm" not in {node.op_type for node in model.graph.node}
    assert cli_run(*command, "--force")[0] == 0
    model = onnx.load(lm.with_name("lm.onnx"))
    assert "Gemm" in {node.op_type for node in model.graph.node}


def test_a_gemm_stays_one_with_a_word(lm: Path, exporter_here: None) -> None:
    operations.convert(lm, "onnx", proof="static")
    untied, tied = lm.with_name("u.onnx"), lm.with_name("t.onnx")
    operations.untie(lm.with_name("lm.onnx"), output=untied, proof="static")
    assert sizes(untied).count(V * H) == 2
    command = ["tie", untied, "--duplicates", "-o", tied, "--proof", "full"]
    status, words = cli_run(*command, "--onnx-head", "activation")
    assert status == 0, words
    assert "is a Gemm already and stays one" in words
    assert sizes(tied).count(V * H) == 1


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [3, 99])
def test_an_opset_that_cannot_be_written(lm: Path, exporter_here: None, opset: int) -> None:
    with pytest.raises(UnsupportedFormat, match=f"--opset {opset}: "):
        operations.convert(lm, "onnx", opset=opset)
    assert [path.name for path in lm.parent.iterdir()] == ["lm.keras"]


def test_a_masked_recurrence_as_a_program(tmp_path: Path) -> None:
    ids = keras.Input((None,), dtype="int32", name="ids")
    masked = layers.Embedding(11, 3, mask_zero=True, name="embed")(ids)
    path = saved(keras.Model(ids, layers.GRU(5, name="rnn")(masked)), tmp_path)
    with pytest.raises(UnsupportedFormat, match=r"m\.keras: rnn skips masked steps"):
        operations.convert(path, "pt2")


def test_an_activation_that_onnx_lacks(tmp_path: Path, exporter_here: None) -> None:
    x = keras.Input((7, 5), name="x")
    path = saved(keras.Model(x, layers.LSTM(3, activation="gelu", name="rnn")(x)), tmp_path)
    with pytest.raises(UnsupportedFormat, match=r"^--to onnx: rnn has the activation gelu"):
        operations.convert(path, "onnx")


def test_code_in_a_model(tmp_path: Path) -> None:
    x = keras.Input((3,), name="x")
    path = saved(keras.Model(x, layers.Lambda(lambda y: y * 2, name="twice")(x)), tmp_path)
    for to in ("onnx", "pt2"):
        with pytest.raises(UnmappedLayer, match="twice"):
            operations.convert(path, to)


def test_weights_without_a_model(tmp_path: Path) -> None:
    x = keras.Input((3,), name="x")
    keras.Model(x, layers.Dense(5)(x)).save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(UnsupportedFormat, match="config"):
        operations.convert(tmp_path / "m.weights.h5", "onnx")


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_the_wrong_suffix(lm: Path, to: str) -> None:
    with pytest.raises(UnsupportedFormat, match=rf"ends in \.{to}"):
        operations.convert(lm, to, output=lm.with_name("lm.pt"))


@pytest.mark.parametrize("option", [("--opset", 18), ("--onnx-head", "activation")])
def test_an_option_of_another_format(lm: Path, option: tuple[str, Any]) -> None:
    status, words = cli_run("convert", lm, "--to", "pt2", *option)
    assert status == 2
    assert f"{option[0]} is for --to onnx" in words


@pytest.mark.parametrize("package", ["torch", "onnxscript"])
def test_a_missing_framework(lm: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else found(name)
    )
    with pytest.raises(MissingFramework, match=f"needs {package}, which is not installed"):
        operations.convert(lm, "onnx")


def test_without_onnxruntime_it_is_written_and_not_run(
    lm: Path, exporter_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else found(name)
    )
    outcome = operations.convert(lm, "onnx")
    assert outcome.proof.max_abs_diff is None
    assert outcome.proof.poke is None
    assert any("onnxruntime" in word or "ONNX Runtime" in word for word in outcome.warnings)
