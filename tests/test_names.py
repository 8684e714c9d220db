"""Names that people type: full, short, of wrappers and of what they wrap."""

import numpy as np
import pytest

from tiesurgeon.errors import UnknownName
from tiesurgeon.graph import Graph, Layer, Variable, View, in_memory
from tiesurgeon.names import Names, Spot, resolve

V, H = 11, 3


def view(path: str, role: str, *shape: int) -> View:
    return View(role, Variable(f"{path}/{role}", in_memory(path, np.zeros(shape, np.float32))))


def dense(path: str) -> Layer:
    name = path.rsplit("/", 1)[-1]
    return Layer(name, "Dense", views=(view(path, "kernel", H, V), view(path, "bias", V)))


def table(path: str) -> Layer:
    return Layer(path.rsplit("/", 1)[-1], "Embedding", views=(view(path, "embeddings", V, H),))


def nested(name: str, *layers: Layer) -> Layer:
    return Layer(name, "Functional", body=Graph(name, "Functional", layers))


@pytest.fixture
def graph() -> Graph:
    lstm = (view("lstm", "kernel", H, 4 * H), view("lstm", "recurrent_kernel", H, 4 * H))
    layers = (
        Layer("ids", "InputLayer"),
        table("embedding"),
        Layer("lstm", "LSTM", views=lstm),
        Layer("out", "TimeDistributed", inner=(dense("out/dense_out"),)),
        nested("a", table("a/emb"), table("a/only_here")),
        nested("b", table("b/emb")),
        Layer("tied", "TiedEmbeddingsTransposed"),
        Layer("heads", "MultiHeadAttention", views=(view("heads", "query/kernel", H, 2, H),)),
    )
    return Graph("model", "Functional", layers)


@pytest.mark.parametrize(
    ("text", "path", "role"),
    [
        ("embedding", "embedding", "embeddings"),
        ("embedding/embeddings", "embedding", "embeddings"),
        ("out", "out/dense_out", "kernel"),
        ("dense_out", "out/dense_out", "kernel"),
        ("out/dense_out", "out/dense_out", "kernel"),
        ("out/kernel", "out/dense_out", "kernel"),
        ("dense_out/kernel", "out/dense_out", "kernel"),
        ("out/dense_out/kernel", "out/dense_out", "kernel"),
        ("out/bias", "out/dense_out", "bias"),
        ("lstm/kernel", "lstm", "kernel"),
        ("only_here", "a/only_here", "embeddings"),
        ("a/emb", "a/emb", "embeddings"),
        ("b/emb/embeddings", "b/emb", "embeddings"),
        ("heads", "heads", "query/kernel"),
        ("heads/query/kernel", "heads", "query/kernel"),
        ("/embedding/", "embedding", "embeddings"),
    ],
)
def test_a_name_leads_to_the_layer_and_its_matrix(
    graph: Graph, text: str, path: str, role: str
) -> None:
    spot = resolve(graph, text)
    assert spot.path == path
    assert spot.layer is dict(graph.walk())[path]
    assert spot.view is spot.layer.view(role)
    assert spot.variable == f"{path}/{role}"


def test_a_layer_without_a_matrix_has_no_view(graph: Graph) -> None:
    assert resolve(graph, "tied") == Spot("tied", graph.layer("tied"), None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("embeding", "nearest are embedding"),
        ("dens", "dense_out"),
        ("emb", "ambiguous; say which one: a/emb, b/emb"),
        ("lstm", "several matrices; name the one you mean: lstm/kernel, lstm/recurrent_kernel"),
        ("b", "its matrix in a nested layer; name the one you mean: b/emb/embeddings"),
        ("zzzzzz", "it holds embedding/embeddings"),
        ("", "it holds embedding/embeddings"),
    ],
)
def test_what_is_not_clear_is_said_in_one_line(graph: Graph, text: str, said: str) -> None:
    with pytest.raises(UnknownName) as caught:
        resolve(graph, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_without_weights_says_so() -> None:
    with pytest.raises(UnknownName, match="holds no weights"):
        resolve(Graph("m", "Functional", (Layer("x", "InputLayer"),)), "embedding")


def test_a_full_path_wins_over_the_tail_of_another() -> None:
    graph = Graph("m", "Functional", (nested("a", table("a/emb")), table("emb")))
    assert resolve(graph, "emb").path == "emb"
    assert resolve(graph, "a/emb").path == "a/emb"


def test_a_wrapper_at_the_top_wins_over_a_nested_layer_of_its_name() -> None:
    wrapper = Layer("out", "TimeDistributed", inner=(dense("out/d"),))
    graph = Graph("m", "Functional", (nested("a", dense("a/out")), wrapper))
    assert resolve(graph, "out").path == "out/d"


def test_a_layer_wins_over_one_of_its_name_inside_a_wrapper() -> None:
    wrapper = Layer("out", "TimeDistributed", inner=(dense("out/d"),))
    graph = Graph("m", "Functional", (wrapper, dense("d")))
    assert resolve(graph, "d").path == "d"
    assert resolve(graph, "out").path == "out/d"


def test_layers_that_share_their_variable_are_one_and_the_same() -> None:
    shared = table("emb")
    graph = Graph("m", "Functional", (nested("a", shared), nested("b", shared)))
    assert resolve(graph, "emb").path == "a/emb"


@pytest.mark.parametrize(
    ("full", "short"),
    [
        ("embedding/embeddings", "embedding"),
        ("out/dense_out/kernel", "out"),
        ("out/dense_out/bias", "out/bias"),
        ("a/emb/embeddings", "a/emb"),
        ("a/only_here/embeddings", "only_here"),
        ("lstm/recurrent_kernel", "lstm/recurrent_kernel"),
    ],
)
def test_the_short_name_is_one_that_leads_back(graph: Graph, full: str, short: str) -> None:
    names = Names(graph)
    assert names.short(names.resolve(full)) == short
    assert names.resolve(short).variable == full
