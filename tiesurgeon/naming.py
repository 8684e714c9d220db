"""What names of weights say by convention: which is a table, an output layer, a position.

A name is a full one (`decoder.embed_tokens.weight`, `dense/kernel`) or a part of it. The
conventions are those of transformers, fairseq, OpenNMT, fastai and PyTorch's own examples.
"""

from __future__ import annotations

import re
from typing import Literal

from tiesurgeon.names import Spot

# Words stand between dots, slashes, underscores and digits. "pos" must stand alone or begin
# "position", so that "compose" and "positive" are no positions. "wpe" is GPT-2's name for its
# position table, "relative_attention_bias" T5's.
_POSITION = re.compile(
    r"(?:^|[^a-z])(?:wpe|pos(?:n|emb)?(?:$|[^a-z])|position)|positions?(?:$|[^a-z])"
    r"|(?<![a-z])(?:pe|rel|relative|rotary|sinusoidal)(?![a-z])"
)
_SEGMENT = re.compile(r"segment|token_?type|sentence_?type")
_TOKEN = re.compile(r"token|word|char|vocab|subword|input_ids")

_TABLE = re.compile(r"embed|(?<![a-z])(?:embs?|wte|luts?|word_?vec(?:tor)?s?|shared)(?![a-z])")
# A layer among the embeddings that looks nothing up, or looks up something else than tokens.
_NO_TABLE = re.compile(
    r"embed_out|unembed|embedd?ings?_(?:project|hidden|to)"
    r"|(?:patch|image|img|pixel|time|class|label|speaker|lang)[a-z]*_?embed"
    r"|(?<![a-z])(?:proj|projection|linear|dense|fc|norm|layernorm|mlp)\d*(?:\.weight)?$"
)

# The last part of an output layer's name that numbers do not make up, or the part before it.
_SURE_HEAD = re.compile(
    r"(?:^|\.)(?:lm_head|lm_loss|embed_out|unembed(?:ding)?|generator|generator_lm_head"
    r"|predictions\.decoder|(?:to_)?logits|out_?embed(?:ding)?s?|head|output|pred_layer\.proj"
    r"|(?:output|vocab|final|word|token)_?(?:projection|projector|proj|layer|logits|linear|head))"
    r"(?:\.(?:proj|projection|linear|decoder|out|fc))?$"
)
_LIKELY_HEAD = re.compile(
    r"(?:^|[._])(?:decoder|out|outputs?|proj|projection|fc|linear|final|softmax|classifier|pred"
    r"|predictions?|predictor|vocab|head|logits?|scorer?|h2o)\d*$"
)

# Parts of the blocks in between, whose shape may be that of a table by chance.
_INSIDE = re.compile(
    r"(?<![a-z])(?:attn|attention|self_attn|mlp|ffn?|feed_?forward|intermediate|conv|pool(?:er)?"
    r"|norm|gates?|experts?|lora|adapter|query|key|value|qkv|in_proj|[qkv]_?proj)(?![a-z])"
)
_RECURRENT = re.compile(r"recurrent|lstm|gru|rnn|cell|(?<![a-z])weight_[ih]h")
# Optimizer moments and averages of weights: as large as what they belong to.
_COPIED = re.compile(
    r"exp_avg|momentum|square_avg|(?<![a-z])(?:optim(?:izer)?|ema|swa|shadow|averaged)(?![a-z])"
)
_SIDE = re.compile(
    r"(?<![a-z])(?:(?P<encoder>enc(?:oder)?|src|source)|(?P<decoder>dec(?:oder)?|tgt|trg|target))"
    r"(?![a-z])"
)


def says_position(name: str) -> bool:
    """True for `wpe`, `embed_positions`, `relative_attention_bias`."""
    return bool(_POSITION.search(name.lower()))


def says_segment(name: str) -> bool:
    """True for `token_type_embeddings`."""
    return bool(_SEGMENT.search(name.lower()))


def says_other_ids(name: str) -> bool:
    """True for tables that are looked up by positions or segments, not by tokens."""
    return says_position(name) or says_segment(name)


def says_token(name: str) -> bool:
    """True for `word_embeddings`, `input_ids`."""
    return bool(_TOKEN.search(name.lower()))


def says_table(name: str) -> bool:
    """True for a table of tokens: `wte`, `embed_tokens`, `shared`."""
    name = name.lower()
    return bool(_TABLE.search(name)) and not says_other_ids(name) and not _NO_TABLE.search(name)


def says_head(name: str) -> Literal["surely", "likely", ""]:
    """How sure a name makes it that a layer gives the output: `lm_head` surely, `fc` likely."""
    layer = _layer(name)
    if _SURE_HEAD.search(layer):
        return "surely"
    return "likely" if _LIKELY_HEAD.search(layer) else ""


def says_inside(name: str) -> bool:
    """True for parts of attention, feed-forward and recurrent layers."""
    return bool(_INSIDE.search(name.lower())) or says_recurrent(name)


def says_recurrent(name: str) -> bool:
    """True for the matrices of LSTM, GRU and their like."""
    return bool(_RECURRENT.search(name.lower()))


def says_copied(name: str) -> bool:
    """True for what training keeps beside the weights: moments, averages."""
    return bool(_COPIED.search(name.lower()))


def side(name: str) -> str:
    """The half of an encoder-decoder model that a name speaks of first: `encoder`, `decoder`."""
    found = _SIDE.search(name.lower())
    return "" if found is None else str(found.lastgroup)


def is_table_by_name(spot: Spot) -> bool:
    """True for a matrix of unknown class whose name says table; a table has no bias."""
    is_bare = not spot.layer.op and spot.view is not None and len(spot.view.shape) == 2
    return is_bare and says_table(spot.variable) and spot.layer.view("bias") is None


def is_head_by_name(spot: Spot) -> bool:
    """True for a matrix of unknown class whose name says output layer."""
    is_bare = not spot.layer.op and spot.view is not None and len(spot.view.shape) == 2
    return is_bare and bool(says_head(spot.variable)) and not is_table_by_name(spot)


def _layer(name: str) -> str:
    """The name without `.weight` and without the numbers that it ends with."""
    return re.sub(r"(?:\.\d+)+$", "", re.sub(r"\.weight$", "", name.lower()))
