"""Pairs in whole modules, where classes are known, and in exported programs, where calls are."""

from dataclasses import replace

import numpy as np
import pytest

from tests.handmade import Model, numbers, pairs
from tests.handmade_torch import bare, embedding, linear, module, modules
from tiesurgeon import find
from tiesurgeon.graph import Array, Graph, Kind, Layer, Shape, Value, Variable, View, in_memory

V, H = 11, 3

# --- whole modules: classes, no calls ---------------------------------------------------------


def test_classes_and_shapes_tell_what_names_do_not() -> None:
    graph = modules(embedding("a", (V, H)), module("b", "LSTM", weight_ih_l0=(V, H)),
                    linear("c", (V, H)))  # fmt: skip
    (found,) = find.candidates(graph)
    assert (found.source, found.target, found.perm) == ("a", "c", None)
    assert (found.role, found.match) == ("embedding-output", "different")
    assert "how they are connected is Python code, which was not run" in found.reason


def test_the_output_layer_may_have_been_made_first() -> None:
    graph = modules(linear("c", (V, H)), embedding("a", (V, H)))
    assert pairs(graph, values=False) == [("a", "c", "embedding-output")]


def test_a_flat_sequential_has_no_calls_either() -> None:
    layers = embedding("0", (V, H)), module("1", "Dropout"), linear("2", (V, H))
    graph = Graph("Sequential", "Sequential", layers)
    assert pairs(graph, values=False) == [("0", "2", "embedding-output")]


@pytest.mark.parametrize("op", ["EmbeddingBag", "Embedding"])
def test_an_embedding_bag_is_a_table(op: str) -> None:
    graph = modules(module("a", op, weight=(V, H)), linear("c", (V, H)))
    assert pairs(graph, values=False) == [("a", "c", "embedding-output")]


def test_a_subclass_is_known_by_its_attributes() -> None:
    graph = modules(
        module("a", "Scaled", config={"num_embeddings": V, "embedding_dim": H}, weight=(V, H)),
        module("c", "Head", config={"in_features": H, "out_features": V}, weight=(V, H)),
    )
    assert pairs(graph, values=False) == [("a", "c", "embedding-output")]


def test_a_matrix_of_the_models_own_may_lie_either_way() -> None:
    graph = modules(module("", "Model", lm_head=(H, V)), embedding("a", (V, H)))
    (found,) = find.candidates(graph, values=False)
    assert (found.source, found.target, found.perm) == ("a", "lm_head", (1, 0))


def test_a_linear_of_the_transposed_shape_is_no_output_layer() -> None:
    assert pairs(modules(embedding("a", (V, H)), linear("c", (H, V))), values=False) == []


def test_square_linears_are_proposed_by_name_only() -> None:
    graph = modules(embedding("a", (V, V)), linear("q", (V, V)), linear("fc", (V, V)))
    assert pairs(graph, values=False) == []
    graph = modules(embedding("a", (V, V)), linear("q", (V, V)), linear("lm_head", (V, V)))
    (found,) = find.candidates(graph, values=False)
    assert (found.target, found.perm) == ("lm_head", None)


def test_a_feed_forward_layer_as_high_as_the_vocabulary_is_none() -> None:
    inside = linear("blocks.0.up", (V, H)), linear("blocks.0.down", (H, V))
    assert pairs(modules(embedding("a", (V, H)), *inside), values=False) == []
    repeated = [linear(f"blocks.{n}.wide", (V, H)) for n in range(2)]
    assert pairs(modules(embedding("a", (V, H)), *repeated), values=False) == []
    found = pairs(modules(embedding("a", (V, H)), *repeated, linear("x", (V, H))), values=False)
    assert found == [("a", "x", "embedding-output")]


def test_a_sure_name_goes_before_a_likely_one() -> None:
    graph = modules(embedding("a", (V, H)), linear("lm_head", (V, H)), linear("fc", (V, H)))
    assert pairs(graph, values=False) == [("a", "lm_head", "embedding-output")]


def test_position_tables_are_known_by_name_and_by_their_neighbour() -> None:
    head = linear("head", (V, H))
    graph = modules(embedding("e.words", (V, H)), embedding("e.position", (V, H)), head)
    assert pairs(graph, values=False) == [("words", "head", "embedding-output")]
    graph = modules(embedding("e.words", (V, H)), embedding("e.extra", (V, H)), head)
    assert pairs(graph, values=False) == [("words", "head", "embedding-output")]


def test_a_position_table_is_none_of_tokens_whatever_stands_beside_it() -> None:
    graph = modules(embedding("a", (V, H)), embedding("position", (V, H)))
    assert pairs(graph, values=False) == []


def test_two_vocabularies_are_offered_the_decoders_first() -> None:
    graph = modules(embedding("enc_emb", (V, H)), embedding("dec_emb", (V, H)),
                    linear("out", (V, H)))  # fmt: skip
    assert pairs(graph, values=False) == [
        ("dec_emb", "out", "embedding-output"),
        ("enc_emb", "out", "embedding-output"),
        ("enc_emb", "dec_emb", "embedding-embedding"),
    ]


def test_an_autoencoder_is_known_by_its_sizes() -> None:
    graph = modules(linear("0", (5, 13)), module("1", "ReLU"), linear("2", (13, 5)))
    (found,) = find.candidates(graph, values=False)
    assert (found.source, found.target, found.perm) == ("0", "2", (1, 0))
    assert (found.role, "classes and shapes" in found.reason) == ("dense-dense", True)
    other = module("c", "Conv1d", weight=(5, 5, 1))
    assert pairs(replace(graph, layers=(*graph.layers, other)), values=False) == []


def test_equal_layers_get_the_role_of_their_classes() -> None:
    table = numbers(V, V)
    graph = modules(embedding("a", table), linear("c", table.copy()))
    assert pairs(graph) == [("a", "c", "embedding-output")]
    turned = modules(embedding("a", table), linear("c", np.ascontiguousarray(table.T)))
    assert pairs(turned) == [("a", "c", "duplicate")]
    dense = modules(linear("a", table), linear("c", np.ascontiguousarray(table.T)))
    assert pairs(dense) == [("a", "c", "dense-dense")]
    kernel = numbers(3, 5, 2, 2)
    convolutions = modules(module("a", "Conv2d", weight=kernel),
                           module("b", "ConvTranspose2d", weight=kernel.copy()))  # fmt: skip
    assert pairs(convolutions) == [("a", "b", "conv-convtranspose")]


@pytest.mark.parametrize(
    ("role", "kind"), [("mask", "weight"), ("bias", "weight"), ("c", "buffer")]
)
def test_equal_masks_are_nothing_to_tie(role: str, kind: Kind) -> None:
    mask = numbers(5, 5)
    graph = modules(
        *(
            Layer(name, "", views=(View(role, Variable(name, in_memory(name, mask), kind=kind)),),
                  separator=".")
            for name in ("blocks.0.attn", "blocks.1.attn")
        )
    )  # fmt: skip
    assert pairs(graph) == []
    assert find.duplicates(graph) == ()


# --- one storage, two variables ---------------------------------------------------------------


def aliased(graph: Graph, array: Array, turned: str = "") -> Graph:
    """The graph with all its matrices on one storage, that of one layer transposed."""
    storage = in_memory("0", array)
    return replace(
        graph,
        layers=tuple(
            replace(
                layer,
                views=tuple(
                    View(v.role, Variable(v.variable.name, storage),
                         (1, 0) if layer.name == turned else None)
                    for v in layer.views
                ),
            )
            for layer in graph.layers
        ),
    )  # fmt: skip


def test_two_parameters_on_one_storage_are_an_alias_and_a_candidate() -> None:
    graph = aliased(modules(linear("c", (V, H)), embedding("a", (V, H))), numbers(V, H))
    (tie,) = find.ties(graph)
    assert (tie.source, tie.target, tie.kind) == ("c.weight", "a.weight", "alias")
    for values in (True, False):
        (found,) = find.candidates(graph, values=values)
        assert (found.source, found.target, found.match) == ("a", "c", "equal")
        assert (found.role, found.saves_bytes) == ("embedding-output", 0)
        assert "trained apart" in found.reason


def test_of_a_state_dict_the_class_says_whether_they_are_one() -> None:
    graph = aliased(bare({"wte.weight": (V, H), "lm_head.weight": (V, H)}), numbers(V, H))
    (found,) = find.candidates(graph)
    assert (found.source, found.target, found.match) == ("wte", "lm_head", "equal")
    assert "trained apart" not in found.reason
    assert "the model's class says" in found.reason


def test_of_many_on_one_storage_the_first_table_owns_it() -> None:
    names = "lm_head", "shared", "encoder.embed_tokens", "decoder.embed_tokens"
    graph = aliased(bare({f"{name}.weight": (V, H) for name in names}), numbers(V, H))
    found = find.candidates(graph)
    assert [c.source for c in found] == ["shared"] * 3
    assert {c.target for c in found} == {"lm_head", "encoder.embed_tokens", "decoder.embed_tokens"}


@pytest.mark.parametrize(("shape", "kind"), [((), "weight"), ((V, H), "optimizer slot")])
def test_counters_and_moments_on_one_storage_are_no_alias(shape: Shape, kind: Kind) -> None:
    storage = in_memory("0", numbers(*shape))
    views = tuple(View(role, Variable(role, storage, kind=kind)) for role in "ab")
    assert find.ties(modules(Layer("step", "", views=views, separator="."))) == ()


def test_a_transposed_alias_is_found_as_such() -> None:
    graph = aliased(modules(linear("a", (5, 13)), linear("b", (13, 5))), numbers(5, 13), "b")
    (tie,) = find.ties(graph)
    assert (tie.kind, tie.perm) == ("alias", (1, 0))
    (found,) = find.candidates(graph, values=False)
    assert (found.role, found.perm, found.match) == ("dense-dense", (1, 0), "equal")


def test_one_square_storage_seen_both_ways_is_not_equal_the_straight_way() -> None:
    graph = modules(embedding("emb", (V, V)), linear("lm_head", (V, V)))
    matches = {c.perm: c.match for c in find.candidates(aliased(graph, numbers(V, V), "lm_head"))}
    assert matches == {(1, 0): "equal"}


def test_a_matrix_stored_transposed_is_looked_at() -> None:
    table = numbers(V, H)
    turned = View("weight", Variable("b.weight", in_memory("1", table.T.copy())), (1, 0))
    graph = modules(embedding("a", table), Layer("b", "Linear", views=(turned,), separator="."))
    (found,) = find.candidates(graph)
    assert (found.target, found.perm, found.match) == ("b", None, "equal")


def test_a_tied_matrix_goes_by_the_layer_that_sees_it_as_it_is_stored() -> None:
    table = Variable("w", in_memory("0", numbers(V, H)))
    layers = [
        Layer(name, "Linear", views=(View("weight", table, perm),), separator=".")
        for name, perm in (("turned", (1, 0)), ("straight", None))
    ]
    copy = linear("copy", table.storage.load().copy())
    (found,) = find.candidates(modules(*layers, copy))
    assert (found.source, found.perm) == ("straight", None)


# --- exported programs: calls are known -------------------------------------------------------


class Exported(Model):
    """Calls of PyTorch's layers."""

    def looked_up(self, name: str, ids: Value, rows: int = V) -> Value:
        return self.call(embedding(name, (rows, H)), ids)

    def linear(self, name: str, x: Value, rows: int = V, columns: int = H) -> Value:
        return self.call(linear(name, (rows, columns)), x)

    def step(self, op: str, *args: Value) -> Value:
        return self.call(Layer(f"{op}_{len(self.calls)}", op, separator="."), *args)


def test_what_flows_into_the_output_layer_is_offered_straight() -> None:
    model = Exported()
    x = model.step("LSTM", model.looked_up("emb", model.input()))
    graph = model.graph(model.step("Softmax", model.linear("head", x)))
    (found,) = find.candidates(graph)
    assert (found.source, found.target, found.perm) == ("emb", "head", None)
    assert "one row for each of its 11 rows" in found.reason


def test_the_graph_tells_an_output_from_a_layer_in_between() -> None:
    model = Exported()
    x = model.linear("between", model.looked_up("emb", model.input()))
    x = model.linear("back", model.step("LSTM", x), H, V)
    assert pairs(model.graph(model.linear("out", x)), values=False) == [
        ("emb", "out", "embedding-output")
    ]


def test_positions_are_told_by_what_is_looked_up() -> None:
    model = Exported()
    ids = model.input()
    places = model.looked_up("second", model.step("Arange", ids))
    x = model.step("Add", model.looked_up("first", ids), places)
    assert pairs(model.graph(model.linear("head", x)), values=False) == [
        ("first", "head", "embedding-output")
    ]


def test_an_exported_autoencoder() -> None:
    model = Exported()
    x = model.step("ReLU", model.linear("down", model.input("x"), 5, 13))
    graph = model.graph(model.step("Sigmoid", model.linear("up", x, 13, 5)))
    (found,) = find.candidates(graph, values=False)
    assert (found.source, found.target, found.perm) == ("down", "up", (1, 0))
    assert (found.role, "13 numbers into 5" in found.reason) == ("dense-dense", True)


def test_an_exported_square_model() -> None:
    model = Exported()
    x = model.call(embedding("emb", (V, V)), model.input())
    (found,) = find.candidates(model.graph(model.linear("head", x, V, V)), values=False)
    assert found.perm is None
