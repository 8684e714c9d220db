"""Pairs in state dicts: names and shapes as the best-known libraries write them."""

from itertools import pairwise

import numpy as np
import pytest

from tests.handmade import pairs
from tests.handmade_torch import bare, unread
from tiesurgeon import find
from tiesurgeon.graph import Shape

V, H, F = 101, 13, 52
Shapes = dict[str, Shape]


def block(prefix: str, *parts: tuple[str, int, int], count: int = 2) -> Shapes:
    """Weights and biases of layers that are there `count` times; `#` is their number."""
    found: Shapes = {}
    for number in range(count):
        for name, rows, columns in parts:
            path = f"{prefix}.{name}".replace("#", str(number))
            found |= {f"{path}.weight": (rows, columns), f"{path}.bias": (rows,)}
    return found


FEED_FORWARD = (("fc1", F, H), ("fc2", H, F))
ATTENTION = tuple((f"self_attn.{n}_proj", H, H) for n in ("q", "k", "v", "out"))
TRANSFORMER = (*ATTENTION, *FEED_FORWARD)

GPT2: Shapes = {
    "transformer.wte.weight": (V, H),
    "transformer.wpe.weight": (V, H),  # as many positions as tokens
    **block("transformer.h.#", ("attn.c_attn", H, 3 * H), ("attn.c_proj", H, H),
            ("mlp.c_fc", H, F), ("mlp.c_proj", F, H)),
    "lm_head.weight": (V, H),
}  # fmt: skip
LLAMA: Shapes = {
    "model.embed_tokens.weight": (V, H),
    **block("model.layers.#", ("self_attn.q_proj", H, H), ("mlp.gate_proj", V, H),
            ("mlp.up_proj", V, H), ("mlp.down_proj", H, V)),
    "lm_head.weight": (V, H),
}  # fmt: skip
META_LLAMA: Shapes = {
    "tok_embeddings.weight": (V, H),
    **block("layers.#", ("attention.wq", H, H), ("feed_forward.w1", V, H)),
    "output.weight": (V, H),
}
BERT: Shapes = {
    "bert.embeddings.word_embeddings.weight": (V, H),
    "bert.embeddings.position_embeddings.weight": (V, H),
    "bert.embeddings.token_type_embeddings.weight": (2, H),
    **block("bert.encoder.layer.#", ("attention.self.query", H, H), ("intermediate.dense", V, H),
            ("output.dense", H, V)),
    "bert.pooler.dense.weight": (H, H),
    "cls.predictions.bias": (V,),
    "cls.predictions.transform.dense.weight": (H, H),
    "cls.predictions.decoder.weight": (V, H),
    "cls.predictions.decoder.bias": (V,),
    "cls.seq_relationship.weight": (2, H),
}  # fmt: skip
ROBERTA: Shapes = {
    "roberta.embeddings.word_embeddings.weight": (V, H),
    "roberta.embeddings.position_embeddings.weight": (V, H),
    "lm_head.dense.weight": (H, H),
    "lm_head.decoder.weight": (V, H),
    "lm_head.decoder.bias": (V,),
}
DISTILBERT: Shapes = {
    "distilbert.embeddings.word_embeddings.weight": (V, H),
    "distilbert.embeddings.position_embeddings.weight": (V, H),
    "vocab_transform.weight": (H, H),
    "vocab_projector.weight": (V, H),
    "vocab_projector.bias": (V,),
}
ELECTRA: Shapes = {
    "electra.embeddings.word_embeddings.weight": (V, H),
    "electra.embeddings_project.weight": (F, H),
    "electra.embeddings_project.bias": (F,),
    "generator_predictions.dense.weight": (H, F),
    "generator_lm_head.weight": (V, H),
}
GPT_NEOX: Shapes = {
    "gpt_neox.embed_in.weight": (V, H),
    **block("gpt_neox.layers.#", ("mlp.dense_h_to_4h", F, H), ("mlp.dense_4h_to_h", H, F)),
    "embed_out.weight": (V, H),
}
XLM: Shapes = {
    "transformer.position_embeddings.weight": (V, H),
    "transformer.embeddings.weight": (V, H),
    "pred_layer.proj.weight": (V, H),
}
AWD_LSTM: Shapes = {
    "0.encoder.weight": (V, H),
    "0.rnns.0.weight_hh_l0_raw": (4 * F, F),
    "0.rnns.0.module.weight_ih_l0": (4 * F, H),
    "0.rnns.0.module.weight_hh_l0": (4 * F, F),
    "1.decoder.weight": (V, H),
    "1.decoder.bias": (V,),
}
WORD_LANGUAGE_MODEL: Shapes = {
    "encoder.weight": (V, H),
    "rnn.weight_ih_l0": (4 * H, H),
    "rnn.weight_hh_l0": (4 * H, H),
    "decoder.weight": (V, H),
    "decoder.bias": (V,),
}
CTRL: Shapes = {"transformer.w.weight": (V, H), "lm_head.weight": (V, H), "lm_head.bias": (V,)}
CHAR_RNN: Shapes = {
    "emb.weight": (V, H),
    "gru.weight_ih_l0": (3 * H, H),
    "gru.weight_hh_l0": (3 * H, H),
    "fc.weight": (V, H),
    "fc.bias": (V,),
}

ONE_PAIR = {
    "gpt2": (GPT2, ("wte", "lm_head")),
    "llama": (LLAMA, ("embed_tokens", "lm_head")),
    "llama of meta": (META_LLAMA, ("tok_embeddings", "output")),
    "bert": (BERT, ("word_embeddings", "decoder")),
    "roberta": (ROBERTA, ("word_embeddings", "decoder")),
    "distilbert": (DISTILBERT, ("word_embeddings", "vocab_projector")),
    "electra": (ELECTRA, ("word_embeddings", "generator_lm_head")),
    "gpt-neox": (GPT_NEOX, ("embed_in", "embed_out")),
    "xlm": (XLM, ("embeddings", "proj")),
    "awd-lstm": (AWD_LSTM, ("encoder", "decoder")),
    "pytorch's example": (WORD_LANGUAGE_MODEL, ("encoder", "decoder")),
    "ctrl": (CTRL, ("w", "lm_head")),
    "character rnn": (CHAR_RNN, ("emb", "fc")),
}


@pytest.mark.parametrize("name", ONE_PAIR)
def test_the_table_and_the_output_layer_are_the_only_pair(name: str) -> None:
    shapes, (source, target) = ONE_PAIR[name]
    (found,) = find.candidates(unread(shapes), values=False)
    assert (found.source, found.target, found.perm) == (source, target, None)
    assert (found.role, found.match) == ("embedding-output", None)
    assert found.saves_bytes == V * H * 4
    assert "no graph that could confirm it" in found.reason


T5: Shapes = {
    "shared.weight": (V, H),
    "encoder.embed_tokens.weight": (V, H),
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (32, 8),
    **block("encoder.block.#.layer.1.DenseReluDense", ("wi", F, H), ("wo", H, F)),
    "decoder.embed_tokens.weight": (V, H),
    **block("decoder.block.#.layer.2.DenseReluDense", ("wi", F, H), ("wo", H, F)),
    "lm_head.weight": (V, H),
}
FAIRSEQ: Shapes = {
    "encoder.embed_tokens.weight": (V, H),
    **block("encoder.layers.#", *TRANSFORMER),
    "decoder.embed_tokens.weight": (V, H),
    "decoder.embed_positions.weight": (V, H),
    **block("decoder.layers.#", *TRANSFORMER),
    "decoder.output_projection.weight": (V, H),
}
OPENNMT: Shapes = {
    "encoder.embeddings.make_embedding.emb_luts.0.weight": (V, H),
    "encoder.embeddings.make_embedding.pe.pe": (V, 1, H),
    **block("encoder.transformer.#", ("feed_forward.w_1", F, H), ("feed_forward.w_2", H, F)),
    "decoder.embeddings.make_embedding.emb_luts.0.weight": (V, H),
    "generator.0.weight": (V, H),
    "generator.0.bias": (V,),
}
ANNALOG: Shapes = {
    "encoder.tok_embedding.weight": (V, H),
    "encoder.pos_embedding.weight": (V, H),
    **block("encoder.layers.#", ("self_attention.fc_q", H, H),
            ("positionwise_feedforward.fc_1", V, H), ("positionwise_feedforward.fc_2", H, V)),
    "decoder.tok_embedding.weight": (V, H),
    "decoder.pos_embedding.weight": (V, H),
    "decoder.fc_out.weight": (V, H),
    "decoder.fc_out.bias": (V,),
}  # fmt: skip
ANNOTATED: Shapes = {
    "src_embed.0.lut.weight": (V, H),
    "src_embed.1.pe": (1, V, H),
    "tgt_embed.0.lut.weight": (V, H),
    "generator.proj.weight": (V, H),
}


@pytest.mark.parametrize("shapes", [FAIRSEQ, OPENNMT, ANNALOG, ANNOTATED])
def test_of_three_matrices_of_one_vocabulary_the_decoders_come_first(shapes: Shapes) -> None:
    first, second, third = find.candidates(unread(shapes), values=False)
    assert first.source.startswith(("decoder", "tgt"))
    assert second.source.startswith(("encoder", "src"))
    assert first.target == second.target
    assert (third.source, third.target) == (second.source, first.source)
    assert third.role == "embedding-embedding"


def test_t5_has_a_shared_table_as_well() -> None:
    found = pairs(unread(T5), values=False)
    assert found[0] == ("decoder.embed_tokens", "lm_head", "embedding-output")
    assert ("shared", "lm_head", "embedding-output") in found
    assert len(found) == 6


# --- what must not be proposed ----------------------------------------------------------------

NOTHING: dict[str, Shapes] = {
    "position tables": {"wte.weight": (V, H), "wpe.weight": (V, H), "pos_embed.weight": (V, H)},
    "a position table alone": {"wte.weight": (V, H), "wpe.weight": (V, H)},
    "a table with a bias": {"embedder.weight": (V, H), "embedder.bias": (V,),
                            "lm_head.weight": (V, H)},
    "token types": {"tok_embed.weight": (V, H), "token_type_embeddings.weight": (V, H)},
    "a relative bias": {"embed.weight": (32, 8), "rel_pos.output.weight": (32, 8),
                        "relative_attention_bias.weight": (32, 8)},
    "optimizer moments": {"embed.weight": (V, H), "exp_avg.embed.weight": (V, H),
                          "exp_avg_sq.lm_head.weight": (V, H)},
    "averages": {"model.embed.weight": (V, H), "ema.embed.weight": (V, H)},
    "recurrent matrices": {"emb.weight": (V, H), "rnn.weight_ih_l0": (V, H),
                           "decoder.weight_hh_l0": (V, H)},
    "square matrices without names": {"emb.weight": (V, V), "a.weight": (V, V), "fc.weight": (V, V),
                                      "attn.out_proj.weight": (V, V)},
    "feed-forward layers": {"emb.weight": (F, H), **block("layers.#", *TRANSFORMER)},
    "one feed-forward layer": {"emb.weight": (F, H), **block("layers.0", *FEED_FORWARD, count=1)},
    "a projection of patches": {"patch_embed.weight": (V, H), "head.weight": (V, H)},
    "many tables of one size": {f"embed_{n}.weight": (V, H) for n in range(5)},
    "another vocabulary": {"emb.weight": (V, H), "lm_head.weight": (V + 1, H)},
    "a classifier": {"fc1.weight": (F, V), "fc2.weight": (F, F), "fc3.weight": (2, F)},
}  # fmt: skip


@pytest.mark.parametrize("name", NOTHING)
def test_these_are_no_pairs(name: str) -> None:
    assert pairs(unread(NOTHING[name]), values=False) == []


def test_a_nameless_layer_needs_a_shape_of_its_own() -> None:
    assert pairs(unread({"embed.weight": (V, H), "final_thing.weight": (V, H)}), values=False) == [
        ("embed", "final_thing", "embedding-output")
    ]
    small = {"embed.weight": (4 * H, H), "thing.weight": (4 * H, H)}
    assert pairs(unread(small), values=False) == []
    two = {"embed.weight": (V, H), "thing.weight": (V, H), "other.weight": (V, H)}
    assert pairs(unread(two), values=False) == []


def test_a_square_pair_is_proposed_where_both_names_are_sure() -> None:
    (found,) = find.candidates(
        unread({"wte.weight": (V, V), "lm_head.weight": (V, V)}), values=False
    )
    assert found.perm is None


def test_a_sure_output_layer_may_lie_the_other_way() -> None:
    (found,) = find.candidates(
        unread({"wte.weight": (V, H), "lm_head.weight": (H, V)}), values=False
    )
    assert found.perm == (1, 0)


# --- autoencoders -----------------------------------------------------------------------------


def test_the_layers_of_an_autoencoder_mirror_each_other() -> None:
    shapes = {
        "encoder.0.weight": (31, 101), "encoder.2.weight": (7, 31),
        "decoder.0.weight": (31, 7), "decoder.2.weight": (101, 31),
    }  # fmt: skip
    found = find.candidates(unread(shapes), values=False)
    assert [(c.source, c.target, c.perm) for c in found] == [
        ("encoder.0", "decoder.2", (1, 0)), ("encoder.2", "decoder.0", (1, 0)),
    ]  # fmt: skip
    assert all(candidate.role == "dense-dense" for candidate in found)


def test_a_variational_one_has_two_heads_in_the_middle() -> None:
    shapes = {"fc1.weight": (31, 101), "fc21.weight": (7, 31), "fc22.weight": (7, 31),
              "fc3.weight": (31, 7), "fc4.weight": (101, 31)}  # fmt: skip
    found = pairs(unread(shapes), values=False)
    assert found == [("fc1", "fc4", "dense-dense"), ("fc21", "fc3", "dense-dense")]


def test_a_classifier_beside_the_autoencoder_does_no_harm() -> None:
    shapes = {"encoder.fc.weight": (31, 101), "decoder.fc.weight": (101, 31),
              "head.weight": (2, 31)}  # fmt: skip
    assert pairs(unread(shapes), values=False) == [("encoder.fc", "decoder.fc", "dense-dense")]


@pytest.mark.parametrize(
    "sizes",
    [
        (101, 31, 7),  # narrows only
        (101, 31, 101, 31, 101),  # narrows twice
        (31, 101, 31),  # a feed-forward layer
        (101, 31, 31, 101),  # a square in the middle
        (101, 31, 29, 101),
    ],
)
def test_other_stacks_of_layers_are_no_autoencoder(sizes: tuple[int, ...]) -> None:
    shapes = {f"fc{n}.weight": (gives, takes) for n, (takes, gives) in enumerate(pairwise(sizes))}
    assert pairs(unread(shapes), values=False) == []


def test_the_layers_of_an_autoencoder_follow_each_other() -> None:
    assert pairs(unread({"fc1.weight": (31, 101), "fc2.weight": (101, 13)}), values=False) == []


def test_a_transformers_halves_are_no_autoencoder() -> None:
    halves = block("encoder.layers.#", *FEED_FORWARD) | block("decoder.layers.#", *FEED_FORWARD)
    assert pairs(unread(halves), values=False) == []


# --- values -----------------------------------------------------------------------------------


def test_equal_values_are_found_whatever_the_names() -> None:
    table = np.random.default_rng(3).normal(size=(11, 3)).astype("f4")
    graph = bare({"a.weight": table, "b.weight": table.copy(), "c.weight": table.T.copy()})
    assert {(c.source, c.target, c.perm) for c in find.candidates(graph)} == {
        ("a", "b", None), ("a", "c", (1, 0)),
    }  # fmt: skip
    named = bare({"decoder.weight": table, "tok_emb.weight": table.copy()})
    (found,) = find.candidates(named)
    assert (found.source, found.role, found.match) == ("tok_emb", "embedding-output", "equal")
