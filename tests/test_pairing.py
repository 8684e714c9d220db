"""Two names that a user types become one pair: which owns the matrix, which way round."""

import numpy as np
import pytest

from tests.handmade import H, Model, V, language_model, numbers
from tests.handmade_torch import bare, embedding, linear, module, modules
from tiesurgeon import pairing
from tiesurgeon.edits import Perm
from tiesurgeon.errors import ShapeMismatch, TieRefused
from tiesurgeon.graph import Graph

TURNED = (1, 0)


def paired(graph: Graph, source: str, target: str, *, closer: bool = True) -> pairing.Pair:
    spots = pairing.find_spots(graph, source, target)
    return pairing.pair(*spots, is_closer_transposed=closer)


def names_and_perm(graph: Graph, *names: str, closer: bool = True) -> tuple[str, str, Perm | None]:
    pair = paired(graph, *names, closer=closer)
    return pair.source.variable, pair.target.variable, pair.perm


# --- which way round --------------------------------------------------------------------------


def test_an_embedding_and_a_keras_dense_are_each_others_transpose() -> None:
    found = names_and_perm(language_model(), "embedding", "out")
    assert found == ("embedding/embeddings", "out/kernel", TURNED)


def test_an_embedding_and_a_linear_have_one_shape() -> None:
    graph = modules(linear("head", (V, H)), embedding("emb", (V, H)))
    assert names_and_perm(graph, "head", "emb") == ("emb.weight", "head.weight", None)


@pytest.mark.parametrize("closer", [True, False])
def test_of_a_square_pair_the_classes_tell_which_way(closer: bool) -> None:
    graph = modules(embedding("emb", (V, V)), linear("head", (V, V)))
    assert paired(graph, "emb", "head", closer=closer).perm is None
    square = language_model(numbers(V, V), numbers(V, V))
    assert paired(square, "embedding", "out", closer=closer).perm == TURNED


@pytest.mark.parametrize("closer", [True, False])
def test_of_a_square_pair_without_classes_the_names_tell(closer: bool) -> None:
    graph = bare({"lm_head.weight": (V, V), "wte.weight": (V, V)})
    assert names_and_perm(graph, "lm_head", "wte", closer=closer) == (
        "wte.weight", "lm_head.weight", None,
    )  # fmt: skip


@pytest.mark.parametrize(("closer", "perm"), [(True, TURNED), (False, None)])
def test_where_nothing_else_tells_the_values_do(closer: bool, perm: Perm | None) -> None:
    graph = bare({"a.weight": (V, V), "b.weight": (V, V)})
    assert paired(graph, "a", "b", closer=closer).perm == perm
    dense = modules(linear("a", (V, V)), linear("b", (V, V)))
    assert paired(dense, "a", "b", closer=closer).perm == perm


def test_the_layers_of_an_autoencoder_are_each_others_transpose() -> None:
    assert (
        paired(modules(linear("enc", (3, 11)), linear("dec", (11, 3))), "enc", "dec").perm == TURNED
    )
    assert paired(bare({"enc.weight": (3, 11), "dec.weight": (11, 3)}), "enc", "dec").perm == TURNED


def test_a_matrix_of_an_unknown_class_goes_the_way_that_fits() -> None:
    graph = modules(embedding("emb", (V, H)), module("", "Model", out=(H, V), back=(V, H)))
    assert paired(graph, "emb", "out").perm == TURNED
    assert paired(graph, "emb", "back").perm is None


def test_a_convolution_and_its_transpose_have_one_shape() -> None:
    one, other = (module(n, op, weight=(5, 3, 2, 7)) for n, op in
                  (("a", "Conv2d"), ("b", "ConvTranspose2d")))  # fmt: skip
    assert paired(modules(one, other), "a", "b").perm is None


def test_a_class_of_someones_own_is_known_by_its_attributes() -> None:
    table = module("t", "ScaledTable", config={"num_embeddings": V, "embedding_dim": V},
                   weight=(V, V))  # fmt: skip
    head = module("h", "Head", config={"in_features": V, "out_features": V}, weight=(V, V))
    assert names_and_perm(modules(head, table), "h", "t") == ("t.weight", "h.weight", None)


# --- what does not fit ------------------------------------------------------------------------


def refusal(graph: Graph, *names: str) -> str:
    with pytest.raises((ShapeMismatch, TieRefused)) as caught:
        paired(graph, *names)
    return str(caught.value)


@pytest.mark.parametrize(
    "graph",
    [
        modules(embedding("emb", (V, H)), linear("head", (V + 2, H))),
        bare({"emb.weight": (V, H), "head.weight": (V + 2, H)}),
    ],
)
def test_padded_vocabularies_are_refused_with_both_shapes(graph: Graph) -> None:
    assert refusal(graph, "emb", "head") == (
        "'emb.weight' has shape (11, 3) and 'head.weight' has shape (13, 3), expected (11, 3); "
        "the vocabularies differ (11 and 13): one side is padded, "
        "cut it to the other's length first"
    )


def test_padded_vocabularies_in_keras_are_refused_the_same() -> None:
    assert refusal(language_model(None, numbers(H, V + 2)), "embedding", "out") == (
        "'embedding/embeddings' has shape (11, 3) and 'out/kernel' has shape (3, 13), "
        "expected (3, 11); the vocabularies differ (11 and 13): one side is padded, "
        "cut it to the other's length first"
    )


def test_a_linear_never_ties_to_a_table_transposed() -> None:
    graph = modules(embedding("emb", (V, H)), linear("into", (H, V)))
    assert "expected (11, 3)" in refusal(graph, "emb", "into")
    assert "padded" not in refusal(graph, "emb", "into")


def test_other_ranks_do_not_fit() -> None:
    graph = modules(embedding("emb", (V, H)), module("c", "Conv1d", weight=(V, H, 1)))
    assert "(11, 3, 1)" in refusal(graph, "emb", "c")


def test_dtypes_must_agree() -> None:
    half = modules(embedding("emb", (V, H)), linear("head", np.zeros((V, H), np.float16)))
    assert "float16" in refusal(half, "emb", "head")


def test_one_variable_cannot_be_tied_again() -> None:
    model = Model()
    table = model.table("emb")
    graph = model.graph(model.call(table, model.input()))
    assert "one variable already" in refusal(graph, "emb", "emb")
