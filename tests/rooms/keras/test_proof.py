"""The proof must fail where it should: equal outputs are not a tie."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tiesurgeon import edits, operations, pairing
from tiesurgeon.errors import ProofFailed
from tiesurgeon.graph import Graph
from tiesurgeon.outcome import Proof
from tiesurgeon.rooms.keras import run, surgery, write
from tiesurgeon.rooms.keras.read import read

layers = keras.layers
V, H, T = 11, 3, 5


def saved(path: Path) -> Path:
    tokens = layers.Input((T,), dtype="int32", name="tokens")
    x = layers.Embedding(V, H, name="embedding")(tokens)
    x = layers.LSTM(H, return_sequences=True, name="lstm")(x)
    model = keras.Model(tokens, layers.Dense(V, activation="softmax", name="dense")(x))
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.standard_normal(variable.shape))
    table = np.asarray(model.get_layer("embedding").embeddings)
    model.get_layer("dense").set_weights([table.T, rng.standard_normal(V)])
    model.save(path)
    return path


@pytest.fixture
def order(tmp_path: Path) -> surgery.Order:
    path = saved(tmp_path / "model.keras")
    before = read(path).graph
    pair = pairing.pair(*pairing.find_spots(before, "embedding", "dense"))
    one, other = pair.views
    after = edits.tie(before, one.variable, other.variable, pair.stored_perm)
    return surgery.Order(before, after, path, {})


@pytest.fixture
def written_as(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`written_as(graph)`: this graph is what lands in `out.keras`, whatever was meant."""

    def change(graph: Graph) -> None:
        def instead(meant: Graph, path: Path, **options: Any) -> None:
            is_output = path.name == "out.keras"
            write.write_keras(graph if is_output else meant, path, **options)

        monkeypatch.setattr(surgery, "write_keras", instead)

    return change


@pytest.mark.usefixtures("proof_here")
class TestTheFullProof:
    """Stock Keras judges files that look right and are not."""

    @pytest.fixture(autouse=True)
    def _no_static_proof(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(surgery, "refuse_other", lambda graph, again, name: None)

    def test_a_tie_passes(self, order: surgery.Order, tmp_path: Path) -> None:
        result = surgery.produce(order, tmp_path / "out.keras", full=True)
        assert result.proof == Proof(True, result.proof.max_abs_diff, True, True)

    def test_an_untied_copy_of_equal_outputs_does_not(
        self, order: surgery.Order, tmp_path: Path
    ) -> None:
        found = judged(order, order.before, tmp_path)
        assert found["from_original"] == 0
        assert found["from_twin"] == 0
        assert found["poke"] is False
        assert found["gradient"] is False

    def test_swapped_weights_do_not(
        self, order: surgery.Order, tmp_path: Path, written_as: Any
    ) -> None:
        lstm = order.after.layer("lstm")
        swapped = order.after.with_layers(
            {"lstm": replace(lstm, views=tuple(shifted(view) for view in lstm.views))}
        )
        written_as(surgery.expressible(swapped))
        with pytest.raises(ProofFailed, match="other numbers"):
            surgery.produce(order, tmp_path / "out.keras", full=True)


def shifted(view: Any) -> Any:
    variable = edits.with_value(view.variable, np.array(view.variable.storage.load()) + 1)
    return replace(view, variable=variable)


def judged(order: surgery.Order, graph: Graph, folder: Path) -> dict[str, Any]:
    """The script's findings where `graph` is written in the place of the tied one."""
    twin, groups = surgery.twin_of(order.before, order.after)
    paths = [folder / "given.keras", folder / "twin.keras"]
    for each, path in zip((graph, twin), paths, strict=True):
        write.write_keras(surgery.expressible(each), path, provenance={})
    assert len(groups) == 1
    places = run.spots(surgery.expressible(twin))
    members = [replace(places[copy][0], perm=perm) for copy, perm in groups[0][1]]
    return run.judge(
        paths[0],
        surgery.expressible(graph),
        original=order.original,
        modern=paths[1],
        twin=paths[1],
        groups=[(run.Spot(("embedding",), "embeddings"), members)],
    )


def test_the_static_proof_sees_other_numbers(
    order: surgery.Order, tmp_path: Path, written_as: Any
) -> None:
    dense = order.after.layer("dense")
    bias = dense.view("bias")
    other = replace(dense, views=(dense.views[0], shifted(bias)))
    written_as(surgery.expressible(order.after.with_layers({"dense": other})))
    with pytest.raises(ProofFailed, match="other numbers"):
        surgery.produce(order, tmp_path / "out.keras", full=False)


def test_the_static_proof_sees_other_layers(
    order: surgery.Order, tmp_path: Path, written_as: Any
) -> None:
    written_as(surgery.expressible(order.before))
    with pytest.raises(ProofFailed, match="not those that were written"):
        surgery.produce(order, tmp_path / "out.keras", full=False)


def test_a_tied_file_lives_without_tiesurgeon(tmp_path: Path, python_without: Any) -> None:
    """A fresh process: loaded, poked, trained one step, saved and loaded again."""
    path = saved(tmp_path / "model.keras")
    operations.tie(path, [("embedding", "dense")], output=tmp_path / "tied.keras")
    code = """
import json, keras, numpy as np
folder = __import__("sys").argv[1]
x = np.arange(10).reshape(2, 5)
model = keras.models.load_model(folder + "/tied.keras")
untied = keras.models.load_model(folder + "/model.keras")
found = {"same": float(np.abs(model.predict(x, verbose=0) - untied.predict(x, verbose=0)).max())}
matrices = [v for v in model.trainable_variables if tuple(v.shape) in ((11, 3), (3, 11))]
found["matrices"] = len(matrices)
rows = np.zeros((11, 3)); rows[10] = 3.0
matrices[0].assign_add(rows)
untied.get_layer("dense").kernel.assign_add(rows.T)
untied.get_layer("embedding").embeddings.assign_add(rows)
x = x + 1
found["poked"] = float(np.abs(model.predict(x, verbose=0) - untied.predict(x, verbose=0)).max())
model.compile(keras.optimizers.Adam(0.1), "sparse_categorical_crossentropy")
before = np.array(matrices[0])
model.fit(x, x, verbose=0)
found["moved"] = float(np.abs(np.array(matrices[0]) - before).min())
model.save(folder + "/again.keras")
again = keras.models.load_model(folder + "/again.keras")
found["count"] = again.count_params()
found["again"] = float(np.abs(again.predict(x, verbose=0) - model.predict(x, verbose=0)).max())
print("FOUND" + json.dumps(found))
"""
    done = python_without(["tiesurgeon"], code, tmp_path)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))
    found = json.loads(line.removeprefix("FOUND"))
    assert found["matrices"] == 1
    assert found["count"] == V * H + V + 4 * (H * H + H * H + H)
    assert found["moved"] > 0.05  # Adam's first step moves every number that has a gradient
    for name in ("same", "poked", "again"):
        assert found[name] < 1e-5, name
