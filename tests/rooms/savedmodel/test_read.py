"""SavedModels as frameworks write them, read without any."""

import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.rooms.keras.stock import randomised
from tests.rooms.savedmodel import models
from tests.rooms.savedmodel.conftest import Saved
from tiesurgeon import find
from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.graph import Graph
from tiesurgeon.names import resolve
from tiesurgeon.rooms.keras.config import serialise
from tiesurgeon.rooms.keras.read import read as read_keras
from tiesurgeon.rooms.savedmodel.read import is_export, read

IN_H5 = [name for name in models.KERAS_2 if name not in models.NOT_IN_H5]


def exported(module: Any, folder: Path, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf.saved_model.save(module, str(folder), **options)
    return folder


def seen(graph: Graph) -> dict[str, Any]:
    return {
        f"{path}/{view.role}": (view.variable.name, view.variable.trainable, view.load().tobytes())
        for path, layer in graph.walk()
        for view in layer.views
    }


@pytest.mark.parametrize("name", IN_H5)
def test_keras_2_saved_the_same_model_as_in_h5(keras2: Saved, name: str) -> None:
    path = keras2(name)
    found, expected = read(path), read_keras(path.with_suffix(".h5"))

    assert serialise(found.graph) == serialise(expected.graph)
    assert seen(found.graph) == seen(expected.graph)
    assert found.training == expected.training
    assert found.writer == expected.writer


def test_a_layer_of_two_models_is_one_variable(keras2: Saved) -> None:
    graph = read(keras2("two_models_share_a_layer")).graph
    assert len(graph.variables()) == 4
    one, other = (layer.body.layer("shared") for layer in graph.layers if layer.body)
    assert one.views[0].variable is other.views[0].variable


def test_frozen_layers_of_equal_name_are_not_mixed_up(keras2: Saved) -> None:
    path = keras2("same_names")
    held = {v.name: v.numpy() for v in tf.saved_model.load(str(path)).variables[:1]}
    graph = read(path).graph
    first = resolve(graph, "both/first/dense/kernel").view
    second = resolve(graph, "both/second/dense/kernel").view
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.load(), held["dense/kernel:0"])
    assert not np.array_equal(first.load(), second.load())
    assert (first.variable.trainable, second.variable.trainable) == (False, True)


def test_optimizer_and_metrics_are_no_part_of_the_model(keras2: Saved) -> None:
    names = {variable.name for variable in read(keras2("lm")).graph.variables()}
    assert not [name for name in names if "dam" in name or "iteration" in name]


def test_metadata_inside_the_objects_is_read_as_well(copied: Saved) -> None:
    """As TensorFlow 2.2 to 2.4 kept it: made here of what later ones put into a file."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
    from tf_keras.protobuf.saved_metadata_pb2 import SavedMetadata

    path = copied("siamese")
    before = read(path)
    saved = SavedModel.FromString((path / "saved_model.pb").read_bytes())
    metadata = path / "keras_metadata.pb"
    for node in SavedMetadata.FromString(metadata.read_bytes()).nodes:
        place = saved.meta_graphs[0].object_graph_def.nodes[node.node_id].user_object
        place.identifier, place.metadata = node.identifier, node.metadata
    (path / "saved_model.pb").write_bytes(saved.SerializeToString())
    metadata.unlink()
    assert seen(read(path).graph) == seen(before.graph)


def test_a_subclassed_model_shows_its_layers(keras2: Saved) -> None:
    found = read(keras2("subclassed"))
    assert [(layer.name, layer.op) for layer in found.graph.layers] == [
        ("tagger/table", "Embedding"),
        ("tagger/head", "Dense"),
    ]
    assert not found.graph.calls
    assert any("Tagger is a subclassed model" in note for note in found.notes)
    assert any("signature serving_default: (input_1: int32[?, 2])" in n for n in found.notes)


def test_an_export_of_keras_3_is_told_from_a_model(tmp_path: Path) -> None:
    model = randomised(models.KERAS_3["sequential"]())
    model.export(tmp_path / "export", verbose=False)
    found = read(tmp_path / "export")

    assert is_export(found)
    views = {view.variable.name: view for layer in found.graph.layers for view in layer.views}
    for weight in model.weights:
        np.testing.assert_array_equal(views[weight.path].load(), weight.numpy())
    buffers = {name for name, view in views.items() if view.variable.kind == "buffer"}
    assert {name.rpartition("/")[2] for name in buffers} == {"moving_mean", "moving_variance"}
    assert "no Keras layers" in found.notes[0]
    assert "signature serve, serving_default: (x: float32[?, 3]) -> (output_0: " in found.notes[1]
    size = sum(weight.numpy().nbytes for weight in model.weights)
    assert f"8 variables are written a second time ({size:,} bytes)" in found.notes[2]


def test_a_module_of_tensorflow(tmp_path: Path) -> None:
    class Part(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = tf.Variable(tf.ones((11, 3)))  # both are called "Variable"
            self.fixed = tf.Variable(tf.ones(5, tf.bfloat16), trainable=False)

    whole = tf.Module()
    whole.part = Part()
    whole.again = whole.part.w
    found = read(exported(whole, tmp_path / "module"))
    (layer,) = (layer for layer in found.graph.layers if layer.views[0].shape == (5,))
    assert not layer.views[0].variable.trainable
    assert layer.views[0].load().dtype.name == "bfloat16"
    assert sorted(v.shape for v in found.graph.variables()) == [(5,), (11, 3)]


def test_a_model_of_tensorflow_1(tmp_path: Path) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (None, 3), name="x")
        table = v1.get_variable("scope/table", (3, 11))
        session.run(v1.global_variables_initializer())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            v1.saved_model.simple_save(
                session, str(tmp_path / "v1"), {"x": x}, {"y": x @ table.value()}
            )
        value = session.run(table)
    found = read(tmp_path / "v1")
    (layer,) = found.graph.layers
    assert (layer.name, layer.views[0].role) == ("scope", "table")
    np.testing.assert_array_equal(layer.views[0].load(), value)
    assert any("x: float32[?, 3]" in note for note in found.notes)


def test_a_model_without_variables(tmp_path: Path) -> None:
    module = tf.Module()
    module.double = tf.function(lambda x: 2 * x, input_signature=[tf.TensorSpec(None)])
    path = exported(module, tmp_path / "none", signatures=module.double)
    found = read(path)
    assert found.graph.layers == ()
    assert any("x: float32[...]" in note for note in found.notes)


def test_a_config_from_outside_is_refused(keras2: Saved) -> None:
    with pytest.raises(UnsupportedFormat, match="come from inside it"):
        read(keras2("lm"), config=Path("model.json"))


def test_no_framework_is_imported(python_without_frameworks: Any, keras2: Saved) -> None:
    done: subprocess.CompletedProcess[str] = python_without_frameworks(
        "import sys\n"
        "from pathlib import Path\n"
        "from tiesurgeon.rooms.savedmodel.read import read\n"
        "print(len(read(Path(sys.argv[1])).graph.variables()))\n",
        keras2("lm"),
    )
    assert done.stdout == "9\n", done.stderr


def test_numbers_are_mapped_and_not_read(keras2: Saved) -> None:
    for variable in read(keras2("lm")).graph.variables():
        assert isinstance(variable.storage.load(), np.memmap)


def test_ties_are_found_by_identity_and_not_by_equal_numbers(tmp_path: Path) -> None:
    old = pytest.importorskip("tf_keras")
    model = old.Sequential(
        [old.layers.Bidirectional(old.layers.SimpleRNN(3), input_shape=(5, 3)), old.layers.Dense(3)]
    )
    for weight in model.weights:  # all the same: zeros
        weight.assign(np.zeros(weight.shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "zeros", save_format="tf")
    assert find.ties(read(tmp_path / "zeros").graph) == ()
