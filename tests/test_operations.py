"""The verbs on whole files: what is refused, what is left alone, what is said."""

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from tiesurgeon import operations
from tiesurgeon.errors import (
    OutputRefused,
    ProofFailed,
    ShapeMismatch,
    TieRefused,
    TiesurgeonError,
    UnknownName,
    UnreadableFile,
    UnsupportedFormat,
)

pytestmark = pytest.mark.usefixtures("proof_here")
layers = keras.layers


def lm(path: Path, *, rows: int = 11, columns: int = 11) -> Path:
    tokens = layers.Input((5,), dtype="int32", name="tokens")
    x = layers.Embedding(rows, 3, name="embedding")(tokens)
    keras.Model(tokens, layers.Dense(columns, name="dense")(x), name="lm").save(path)
    return path


def state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


class TestNothingIsLeftBehind:
    """Whatever goes wrong: the input as it was, and no output."""

    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        return lm(tmp_path / "model.keras")

    @pytest.mark.parametrize(
        ("pair", "error", "words"),
        [
            (("embeding", "dense"), UnknownName, "embedding"),
            (("embedding", "dense/bias"), ShapeMismatch, r"\(11, 3\).*\(11,\)"),
            (("embedding", "dense"), TieRefused, "--method"),
            (("tokens", "dense"), Exception, "tokens"),
        ],
    )
    def test_a_refused_pair(
        self, model: Path, pair: tuple[str, str], error: Any, words: str
    ) -> None:
        before = state(model.parent)
        with pytest.raises(error, match=words) as caught:
            operations.tie(model, [pair])
        assert isinstance(caught.value, TiesurgeonError)
        assert "\n" not in str(caught.value)
        assert state(model.parent) == before

    def test_a_failed_proof(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from tiesurgeon.rooms.keras import run

        def fails(script: Any, spec: Any, folder: Any) -> Any:
            raise ProofFailed("made to fail")

        monkeypatch.setattr(run, "ask", fails)
        before = state(model.parent)
        with pytest.raises(TiesurgeonError, match="made to fail"):
            operations.tie(model, [("embedding", "dense")], method="mean")
        assert state(model.parent) == before

    def test_an_existing_output(self, model: Path) -> None:
        taken = model.with_name("taken.keras")
        taken.write_text("mine")
        with pytest.raises(OutputRefused, match="--force"):
            operations.tie(model, [("embedding", "dense")], method="mean", output=taken)
        assert taken.read_text() == "mine"

    def test_the_input_as_output(self, model: Path) -> None:
        with pytest.raises(OutputRefused, match="input"):
            operations.convert(model, "keras", output=model, force=True)

    def test_an_output_of_another_kind(self, model: Path) -> None:
        with pytest.raises(UnsupportedFormat, match=r"\.keras or \.h5"):
            operations.tie(
                model, [("embedding", "dense")], method="mean", output=model.with_suffix(".onnx")
            )


def test_a_vocabulary_padded_on_one_side_is_said(tmp_path: Path) -> None:
    path = lm(tmp_path / "m.keras", columns=13)
    with pytest.raises(ShapeMismatch, match=r"\(11, 3\).*\(3, 13\).*padded"):
        operations.tie(path, [("embedding", "dense")], method="mean")


def test_either_order_of_the_pair_will_do(tmp_path: Path) -> None:
    path = lm(tmp_path / "m.keras")
    outcome = operations.tie(path, [("dense", "embedding")], method="keep-source")
    assert [(t.source, t.target) for t in outcome.ties] == [
        ("embedding/embeddings", "dense/kernel")
    ]


def test_the_embedding_owns_the_matrix_wherever_it_stands(tmp_path: Path) -> None:
    x = layers.Input((5, 3), name="x")
    first = layers.Dense(11, name="first")(x)
    ids = layers.Input((5,), dtype="int32", name="ids")
    later = layers.Embedding(11, 3, name="later")(ids)
    for name, inputs in (("a", [x, ids]), ("b", [ids, x])):
        keras.Model(inputs, [first, later]).save(tmp_path / f"{name}.keras")
        for pair in (("first", "later"), ("later", "first")):
            planned = operations.tie(
                tmp_path / f"{name}.keras", [pair], method="mean", dry_run=True
            )
            assert planned.ties[0].source == "later/embeddings"


def test_a_dry_run_writes_nothing_and_says_the_same(tmp_path: Path) -> None:
    path = lm(tmp_path / "m.keras")
    before = state(tmp_path)
    planned = operations.tie(path, [("embedding", "dense")], method="mean", dry_run=True)
    assert state(tmp_path) == before
    done = operations.tie(path, [("embedding", "dense")], method="mean")
    assert planned.output is None
    assert (planned.ties, planned.parameters) == (done.ties, done.parameters)


def test_no_duplicates_is_no_error(tmp_path: Path) -> None:
    path = lm(tmp_path / "m.keras")
    before = state(tmp_path)
    outcome = operations.tie(path, duplicates=True)
    assert outcome.output is None
    assert "nothing to tie" in outcome.lines[0]
    assert state(tmp_path) == before


def test_tying_twice_is_refused_with_words(tmp_path: Path) -> None:
    path = lm(tmp_path / "m.keras")
    tied = operations.tie(path, [("embedding", "dense")], method="mean").output
    assert tied is not None
    with pytest.raises(TieRefused, match="one variable already"):
        operations.tie(tied, [("embedding", "dense")])


def test_a_tied_file_stays_tied_through_every_conversion(tmp_path: Path) -> None:
    path = lm(tmp_path / "m.keras")
    last = operations.tie(path, [("embedding", "dense")], method="mean").output
    assert last is not None
    for step, to in enumerate(("h5", "keras", "h5")):
        outcome = operations.convert(last, to, output=tmp_path / f"step{step}.{to}")
        assert [(t.source, t.target) for t in outcome.ties]
        assert outcome.proof.poke
        assert outcome.proof.step
        assert outcome.parameters == (33 + 11, 33 + 11)
        assert outcome.output is not None
        last = outcome.output
    assert keras.models.load_model(last).count_params() == 33 + 11


def test_the_output_says_where_it_comes_from(tmp_path: Path) -> None:
    path = lm(tmp_path / "m.keras")
    operations.tie(path, [("embedding", "dense")], method="mean")
    with zipfile.ZipFile(tmp_path / "m.tied.keras") as archive:
        said = json.loads(archive.read("metadata.json"))["tiesurgeon"]
    assert said["source"] == "m.keras"
    assert said["ties"][0]["target"] == "dense/kernel"
    operations.tie(
        path, [("embedding", "dense")], method="mean", output=tmp_path / "m.h5", proof="static"
    )
    with h5py.File(tmp_path / "m.h5") as file:
        assert json.loads(file.attrs["tiesurgeon"]) == said


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_compiled_model_can_be_trained_on(tmp_path: Path, suffix: str) -> None:
    model = keras.models.load_model(lm(tmp_path / "m.keras"))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.arange(10).reshape(2, 5)
    model.fit(x, x, verbose=0)
    model.save(tmp_path / f"m{suffix}")

    outcome = operations.tie(tmp_path / f"m{suffix}", [("embedding", "dense")], method="mean")

    assert any("was compiled" in word for word in outcome.warnings)
    tied = keras.models.load_model(tmp_path / f"m.tied{suffix}")
    before = tied.evaluate(x, x, verbose=0)
    tied.fit(x, x, epochs=20, verbose=0)
    assert tied.evaluate(x, x, verbose=0) < before
    tied.save(tmp_path / "trained.keras")
    again = keras.models.load_model(tmp_path / "trained.keras")
    assert again.count_params() == 33 + 11
    assert again.evaluate(x, x, verbose=0) == pytest.approx(tied.evaluate(x, x, verbose=0))


class Subclassed(keras.Model):
    """A model whose graph is Python code."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embedding = layers.Embedding(11, 3)
        self.dense = layers.Dense(11)

    def call(self, inputs: Any) -> Any:
        return self.dense(self.embedding(inputs))


def test_a_subclassed_model_is_refused_with_the_reason(tmp_path: Path) -> None:
    model = Subclassed()
    model(np.zeros((1, 2), "int32"))
    model.save(tmp_path / "m.keras")
    with pytest.raises(UnsupportedFormat, match=r"Subclassed is a subclassed model"):
        operations.tie(tmp_path / "m.keras", [("embedding", "dense")])


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"nowhere\.h5"):
        operations.tie(tmp_path / "nowhere.h5", [("a", "b")])


def test_static_proof_imports_no_framework(tmp_path: Path, python_without_frameworks: Any) -> None:
    path = lm(tmp_path / "m.keras")
    code = (
        "import sys; from pathlib import Path; from tiesurgeon import operations as o\n"
        "path = Path(sys.argv[1])\n"
        "print(o.tie(path, [('embedding', 'dense')], method='mean', proof='static').output)\n"
        "print(o.convert(path, 'torch', proof='static').output)\n"
        "print(o.convert(path, 'h5', proof='full').warnings)\n"
    )
    done = python_without_frameworks(code, path)
    assert done.returncode == 0, done.stderr
    assert "not installed here" in done.stdout
    assert (tmp_path / "m_torch" / "model.py").is_file()
    assert (tmp_path / "m.tied.keras").is_file()
