"""`untie` on Keras files: names get weights of their own, and the model computes the same."""

from pathlib import Path

import keras
import numpy as np
import pytest

from tiesurgeon import operations
from tiesurgeon.errors import TieRefused, UnknownName
from tiesurgeon.inspection import inspect

pytestmark = pytest.mark.usefixtures("proof_here")
layers = keras.layers
V, H, T = 11, 3, 5


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    """A language model whose embedding and output layer are one, with a bias."""
    tokens = layers.Input((T,), dtype="int32", name="tokens")
    x = layers.Embedding(V, H, name="embedding")(tokens)
    keras.Model(tokens, layers.Dense(V, name="dense")(x)).save(tmp_path / "apart.keras")
    path = tmp_path / "model.keras"
    operations.tie(
        tmp_path / "apart.keras",
        [("embedding", "dense")],
        output=path,
        method="keep-source",
        proof="static",
    )
    return path


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_untied_names_have_weights_of_their_own(tied: Path, suffix: str) -> None:
    out = tied.with_name(f"untied{suffix}")
    outcome = operations.untie(tied, output=out)

    assert outcome.untied == ("dense/kernel",)
    assert outcome.ties == ()
    assert outcome.parameters == (V * H + V, 2 * V * H + V)
    assert outcome.proof.reread
    assert outcome.proof.max_abs_diff == 0.0
    found = keras.models.load_model(out)
    kernel, table = found.get_layer("dense").kernel, found.get_layer("embedding").embeddings
    np.testing.assert_array_equal(kernel, np.transpose(table))
    table.assign_add(np.ones((V, H)))
    assert not np.allclose(kernel, np.transpose(table))


def test_the_output_stands_beside_the_input(tied: Path) -> None:
    assert operations.untie(tied, proof="static").output == tied.with_name("model.untied.keras")


def test_one_tie_of_several_can_be_undone(tmp_path: Path) -> None:
    tokens = layers.Input((T,), dtype="int32", name="tokens")
    shared = layers.Embedding(V, H, name="table")
    x = layers.Add(name="sum")([shared(tokens), layers.Embedding(V, H, name="other")(tokens)])
    keras.Model(tokens, layers.Dense(V, name="dense")(x)).save(tmp_path / "m.keras")
    out = tmp_path / "tied.keras"
    operations.tie(
        tmp_path / "m.keras",
        [("table", "other"), ("table", "dense")],
        method="mean",
        output=out,
        proof="static",
    )

    outcome = operations.untie(out, [("table", "dense")], output=tmp_path / "untied.keras")

    assert outcome.untied == ("dense/kernel",)
    assert outcome.parameters[1] - outcome.parameters[0] == V * H
    # "other" is the table itself, called a second time: one layer has its weights once.
    assert [tie.source for tie in inspect(tmp_path / "untied.keras").ties] == ["table/embeddings"]


def test_where_nothing_is_tied_nothing_is_written(tied: Path) -> None:
    outcome = operations.untie(tied.with_name("apart.keras"))
    assert outcome.output is None
    assert outcome.lines == ("nothing in this model is tied: nothing to untie",)
    assert sorted(path.name for path in tied.parent.iterdir()) == ["apart.keras", "model.keras"]


def test_names_that_are_not_tied_are_refused(tied: Path) -> None:
    with pytest.raises(TieRefused, match="not tied"):
        operations.untie(tied, [("embedding", "dense/bias")])
    with pytest.raises(UnknownName, match="'nothing'"):
        operations.untie(tied, [("embedding", "nothing")])


def test_a_layer_called_twice_stays_one_layer(tmp_path: Path) -> None:
    ones = [layers.Input((T,), dtype="int32", name=name) for name in "ab"]
    table = layers.Embedding(V, H, name="table")
    keras.Model(ones, layers.Add(name="sum")([table(x) for x in ones])).save(tmp_path / "m.keras")
    assert operations.untie(tmp_path / "m.keras").untied == ()
    with pytest.raises(TieRefused, match="called several times"):
        operations.untie(tmp_path / "m.keras", [("table", "table")])
