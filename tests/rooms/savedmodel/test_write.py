"""SavedModels that TensorFlow writes for us: once each, tied, served, and open again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.rooms.keras.stock import randomised, saved
from tests.rooms.savedmodel import models
from tiesurgeon import edits, find
from tiesurgeon.errors import MissingFramework, ProofFailed, TiesurgeonError, UnsupportedFormat
from tiesurgeon.model import Change, Permissions
from tiesurgeon.names import resolve
from tiesurgeon.outcome import Result
from tiesurgeon.rooms.keras.model import open_model as open_keras
from tiesurgeon.rooms.savedmodel import export_script, extra, read, run
from tiesurgeon.rooms.savedmodel.bundle import read_bundle
from tiesurgeon.rooms.savedmodel.conversion import to_savedmodel
from tiesurgeon.rooms.savedmodel.model import open_model

PROVENANCE = {"version": "0", "source": "model.keras", "ties": []}
Convert = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


def convert(model: Any, folder: Path, *, full: bool = True) -> Result:
    path = saved(randomised(model), folder.with_name("model.keras"))
    opened = open_keras(path, "keras-v3", Permissions())
    return to_savedmodel(opened, folder, PROVENANCE, full=full)


def variables(folder: Path) -> list[str]:
    found = read_bundle(folder / "variables" / "variables.index")
    return [key for key in found.entries if found.storage(key) is not None]


@pytest.mark.usefixtures("tensorflow_here")
class TestConvert:
    @pytest.mark.parametrize("name", [name for name in models.KERAS_3 if name != "looked_up"])
    def test_every_kind_of_model_is_written_and_proved(self, folder: Path, name: str) -> None:
        result = convert(models.KERAS_3[name](), folder)
        assert result.proof.reread
        assert result.proof.max_abs_diff is not None
        assert result.proof.max_abs_diff < 1e-6
        assert not result.warnings

    def test_a_tied_matrix_is_one_trainable_variable(self, folder: Path) -> None:
        result = convert(models.KERAS_3["tied"](), folder)
        assert (result.proof.poke, result.proof.step) == (True, True)
        loaded = tf.saved_model.load(str(folder))
        assert [tuple(v.shape) for v in loaded.variables].count((11, 3)) == 1
        assert len(loaded.variables) == len(loaded.trainable_variables) == 4
        assert loaded.weights["embedding/embeddings"] is loaded.trainable_variables[0]
        assert len(variables(folder)) == 4

    def test_training_moves_lookup_and_projection_alike(self, folder: Path) -> None:
        convert(models.KERAS_3["tied"](), folder, full=False)
        loaded = tf.saved_model.load(str(folder))
        ids = tf.constant([[1, 2]])
        before = loaded.serve(ids).numpy()
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(loaded.serve(ids))
        gradient = tf.convert_to_tensor(tape.gradient(loss, loaded.trainable_variables)[0])
        # Row 7 is looked up nowhere here: only the projection can have moved it.
        assert np.any(gradient.numpy()[7])
        loaded.trainable_variables[0].assign_sub(0.1 * gradient)
        assert np.any(loaded.serve(ids).numpy()[:, :, 7] != before[:, :, 7])

    def test_the_signature_is_named_and_dynamic_as_keras_has_it(self, folder: Path) -> None:
        model = models.KERAS_3["tied"]()
        convert(model, folder, full=False)
        model.export(folder.with_name("theirs"), verbose=False)
        ours, theirs = (
            tf.saved_model.load(str(path)).signatures["serving_default"]
            for path in (folder, folder.with_name("theirs"))
        )
        assert ours.structured_input_signature == theirs.structured_input_signature
        assert ours.structured_outputs == theirs.structured_outputs
        assert ours(ids=tf.constant([[1, 2, 3, 4, 5]]))["output_0"].shape == (1, 5, 11)

    def test_dictionaries_keep_their_keys(self, folder: Path) -> None:
        convert(models.KERAS_3["dictionaries"](), folder)
        serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
        assert sorted(serve(a=tf.zeros((2, 5)), b=tf.zeros((2, 3)))) == ["y", "z"]

    def test_what_is_frozen_is_listed_apart(self, folder: Path) -> None:
        convert(models.KERAS_3["sequential"](), folder)
        loaded = tf.saved_model.load(str(folder))
        assert len(loaded.trainable_variables) == len(loaded.non_trainable_variables) == 4
        assert any(v is loaded.weights["frozen/kernel"] for v in loaded.non_trainable_variables)

    def test_a_model_that_is_called_twice_is_written_once(self, folder: Path) -> None:
        result = convert(models.KERAS_3["nested"](), folder)
        assert (result.proof.poke, result.proof.step) == (True, True)
        assert len(variables(folder)) == 4

    def test_steps_whose_number_is_unknown_are_all_there(self, folder: Path) -> None:
        """Stock Keras 3.15.1 would give as many as the batch has rows."""
        convert(models.KERAS_3["steps"](), folder)
        loaded = tf.saved_model.load(str(folder))
        assert loaded.serve(tf.zeros((2, 5, 3))).shape == (2, 5, 7)

    def test_lookup_tables_come_along(self, folder: Path) -> None:
        path = saved(models.KERAS_3["looked_up"](), folder.with_name("model.keras"))
        run.export(path, folder, {"embedding": ["embedding/embeddings"]})
        loaded = tf.saved_model.load(str(folder))
        assert loaded.serve(tf.constant([[1, 4, 6, 9, 1]], tf.int64)).shape == (1, 5, 3)

    def test_it_says_where_it_comes_from(self, folder: Path) -> None:
        convert(models.KERAS_3["tied"](), folder, full=False)
        metadata = json.loads((folder / extra.METADATA).read_text())
        assert metadata["tiesurgeon"] == PROVENANCE


@pytest.mark.usefixtures("tensorflow_here")
class TestOpenAgain:
    def test_the_graph_is_the_one_that_was_written(self, folder: Path) -> None:
        convert(models.KERAS_3["tied"](), folder, full=False)
        found = read.read(folder)
        assert [(t.source, t.target, t.perm) for t in find.ties(found.graph)] == [
            ("embedding/embeddings", "embedding_reverse/kernel", (1, 0))
        ]
        assert found.writer == f"keras {keras.__version__}"

    def test_a_compiled_model_still_is(self, folder: Path) -> None:
        model = models.KERAS_3["sequential"]()
        model.compile("adam", "mse")
        convert(model, folder, full=False)
        training = read.read(folder).training
        assert training is not None
        assert training["loss"] == "mse"

    @pytest.mark.parametrize("suffix", ["", ".keras", ".h5"])
    def test_it_is_converted_on(self, folder: Path, suffix: str) -> None:
        convert(models.KERAS_3["tied"](), folder, full=False)
        opened = open_model(folder, "savedmodel", Permissions())
        output = folder.with_name(f"again{suffix}")
        if not suffix:
            output.mkdir()
        change = Change(edits.untie(opened.graph), opened.graph, PROVENANCE)
        proof = opened.write(change, output, full=True).proof
        assert proof.max_abs_diff is not None
        assert proof.max_abs_diff < 1e-6
        assert (proof.reread, proof.poke, proof.step) == (True, True, True)

    def test_what_tensorflow_code_is_lost_is_said(self, tmp_path: Path) -> None:
        import tf_keras

        x = tf_keras.Input((3,), name="x")
        model = tf_keras.Model(x, tf_keras.layers.Dense(2)(x))
        signatures = {
            name: tf.function(lambda y: model(y), [tf.TensorSpec((None, 3), name=given)])
            for name, given in (("serving_default", "x"), ("other", "x"), ("serve", "texts"))
        }
        model.save(tmp_path / "model", save_format="tf", signatures=signatures)
        words = open_model(tmp_path / "model", "savedmodel", Permissions()).words(tmp_path)
        assert [word.split(":")[0] for word in words] == ["signature other", "signature serve"]

    def test_a_model_of_keras_2_is_tied(self, keras2: Any, folder: Path) -> None:
        opened = open_model(keras2("lm"), "savedmodel", Permissions())
        opened.refuse_unchangeable()
        source, target = (resolve(opened.graph, name) for name in ("embedding", "out"))
        assert source.view is not None
        assert target.view is not None
        graph = edits.tie(
            opened.graph, source.view.variable, target.view.variable, (1, 0), source.view.load()
        )
        change = Change(opened.graph, graph, PROVENANCE, values_changed=True)
        result = opened.write(change, folder, full=True)
        assert (result.proof.poke, result.proof.step) == (True, True)
        assert result.lines[0].startswith("damage ")  # TensorFlow ran the original
        assert opened.words(folder) == ("the state of its optimizer is not kept",)
        assert [t.target for t in find.ties(read.read(folder).graph)] == ["out/kernel"]


@pytest.mark.usefixtures("tensorflow_here")
class TestProof:
    """What would be wrong is noticed."""

    def fails(self, folder: Path, words: str) -> None:
        with pytest.raises(ProofFailed, match=words):
            convert(models.KERAS_3["tied"](), folder)

    def test_variables_written_twice(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def copies(model: Any, names: Any) -> Any:
            return {name: tf.Variable(v) for name, v in true(model, names).items()}

        true = export_script.by_name
        monkeypatch.setattr(export_script, "by_name", copies)
        self.fails(folder, "4 variables were written as 8")

    def test_outputs_that_differ(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Doubled(export_script.Exported):
            def __init__(self, model: Any, names: Any) -> None:
                super().__init__(model, names)
                true = self.serve
                self.serve = tf.function(
                    lambda ids: 2 * true(ids), [tf.TensorSpec((None, None), tf.int32, "ids")]
                )

        monkeypatch.setattr(export_script, "Exported", Doubled)
        self.fails(folder, "outputs that differ by")

    def test_a_use_that_is_frozen_into_the_graph(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The projection as a constant: equal outputs, and only the lookup would train."""

        def constant(inputs: Any, table: Any) -> Any:
            with tf.init_scope():
                value = tf.constant(table.numpy().T)
            return tf.matmul(inputs, value)

        def frozen(self: Any, inputs: Any, reverse: bool = False) -> Any:
            if reverse and not tf.executing_eagerly():
                return constant(inputs, self.embeddings)
            return call(self, inputs, reverse)

        def write(spec: Any) -> None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(keras.layers.ReversibleEmbedding, "call", frozen)
                true(spec)

        call, true = keras.layers.ReversibleEmbedding.call, export_script.write
        monkeypatch.setattr(export_script, "write", write)
        self.fails(folder, "poke check")

    def test_a_trainable_variable_that_is_not_listed(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Forgetful(export_script.Exported):
            def __init__(self, model: Any, names: Any) -> None:
                super().__init__(model, names)
                self.trainable_variables = self.trainable_variables[1:]

        monkeypatch.setattr(export_script, "Exported", Forgetful)
        self.fails(folder, "listed check")


class TestRefusals:
    def test_a_custom_layer(self, folder: Path, samples: Path, tmp_path: Path) -> None:
        @keras.saving.register_keras_serializable("mine")
        class Mine(keras.layers.Dense):
            pass

        x = keras.Input((3,))
        with pytest.raises(UnsupportedFormat, match=r"custom layer .* write \.keras instead"):
            convert(keras.Model(x, Mine(2)(x)), folder)

    def test_what_tensorflow_cannot_save(self, folder: Path, tensorflow_here: None) -> None:
        x = keras.Input((3,), name="x")
        model = keras.Model(x, {"a": {"b": keras.layers.Dense(2)(x)}})
        with pytest.raises(UnsupportedFormat, match=r"TensorFlow cannot save this model \(\w+: "):
            convert(model, folder)

    def test_without_tensorflow(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(MissingFramework, match="tensorflow is not installed"):
            convert(models.KERAS_3["tied"](), folder)

    def test_an_export(self, tmp_path: Path) -> None:
        models.KERAS_3["tied"]().export(tmp_path / "export", verbose=False)
        opened = open_model(tmp_path / "export", "savedmodel", Permissions())
        with pytest.raises(UnsupportedFormat, match=r"no Keras layers.*model\.save"):
            opened.refuse_unchangeable()

    def test_a_subclassed_model(self, keras2: Any) -> None:
        opened = open_model(keras2("subclassed"), "savedmodel", Permissions())
        with pytest.raises(UnsupportedFormat, match="Tagger is a subclassed model"):
            opened.refuse_unchangeable()

    @pytest.mark.parametrize("name", ["model.h5", "model.keras", "saved_model.pb"])
    def test_names_of_files(self, keras2: Any, name: str) -> None:
        opened = open_model(keras2("siamese"), "savedmodel", Permissions())
        with pytest.raises(UnsupportedFormat, match="is a folder"):
            opened.refuse_output(Path(name))


@pytest.mark.usefixtures("tensorflow_here")
class TestGraphsThatReachOut:
    """Keras 2's objects with a function that does more: they are looked at and never run."""

    @pytest.mark.parametrize(
        "reach",
        [
            lambda path: tf.io.write_file(path, "was here"),
            lambda path: tf.io.read_file(path),
            lambda path: tf.py_function(lambda: None, [], []),
            lambda path: tf.raw_ops.SaveV2(
                prefix=path, tensor_names=["a"], shape_and_slices=[""], tensors=[tf.zeros(3)]
            ),
            lambda path: tf.print("was here", output_stream=f"file://{path}"),
        ],
    )
    @pytest.mark.parametrize("is_hidden", [False, True])
    def test_they_are_not_run(self, tmp_path: Path, reach: Any, is_hidden: bool) -> None:
        target = str(tmp_path / "target")

        def deep(x: Any) -> Any:
            with tf.control_dependencies([reach(target)]):
                return x + 1.0

        module = tf.Module()
        module.serve = tf.function(
            (lambda x: tf.cond(x[0] > 0, lambda: tf.function(deep)(x), lambda: x))
            if is_hidden
            else deep,
            input_signature=[tf.TensorSpec((3,), name="x")],
            autograph=False,
        )
        tf.saved_model.save(module, str(tmp_path / "model"))
        x = keras.Input((3,), name="x")
        path = saved(keras.Model(x, keras.layers.ReLU()(x)), tmp_path / "model.keras")
        graph = open_keras(path, "keras-v3", Permissions()).graph
        with pytest.raises(TiesurgeonError, match="was not run, as its graph reaches beyond it"):
            run.outputs(tmp_path / "model", graph, {"x": np.ones(3, "float32")})
        assert not Path(target).exists()


def test_all_of_it_in_fresh_processes(folder: Path) -> None:
    result = convert(models.KERAS_3["tied"](), folder)
    proof = result.proof
    assert proof.max_abs_diff is not None
    assert proof.max_abs_diff < 1e-6
    assert (proof.reread, proof.poke, proof.step) == (True, True, True)
