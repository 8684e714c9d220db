"""Stock transformers in a process of its own: makes folders, and says what it finds in folders.

Run as `stock.py make FOLDER`, `stock.py judge FOLDER...` or `stock.py tied CLASS...`; nothing
of tiesurgeon is imported.
"""

import importlib
import json
import logging
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.simplefilter("ignore")

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

hf: Any = importlib.import_module("transformers")  # too many types to follow
logging.disable(logging.WARNING)
hf.utils.logging.disable_progress_bar()

VOCABULARY = 11
GPT2 = {
    "n_embd": 6,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 7,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
LLAMA = {
    "hidden_size": 6,
    "intermediate_size": 5,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
}
T5 = {
    "d_model": 6,
    "d_kv": 3,
    "d_ff": 5,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
BERT = {
    "hidden_size": 6,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 5,
    "max_position_embeddings": 7,
}
BART = dict(
    d_model=6,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=5,
    decoder_ffn_dim=5,
    max_position_embeddings=7,
    **{f"{name}_token_id": n for n, name in enumerate(("pad", "bos", "eos", "decoder_start"))},
)


def make(folder: Path) -> None:
    """Models whose tables and heads are equal and stored apart, and the same models tied."""
    torch.manual_seed(3)
    for name, kind, config in (
        ("gpt2", hf.GPT2LMHeadModel, hf.GPT2Config(**GPT2, vocab_size=VOCABULARY)),
        ("llama", hf.LlamaForCausalLM, hf.LlamaConfig(**LLAMA, vocab_size=VOCABULARY)),
        ("bert", hf.BertForMaskedLM, hf.BertConfig(**BERT, vocab_size=VOCABULARY)),
        ("bart", hf.BartForConditionalGeneration, hf.BartConfig(**BART, vocab_size=VOCABULARY)),
    ):
        config.tie_word_embeddings = True
        kind(config).save_pretrained(folder / f"{name}-tied")
        config.tie_word_embeddings = False
        model = randomised(kind(config))
        model.save_pretrained(folder / f"{name}-different")
        table = model.get_input_embeddings().weight.data
        for embedding in model.modules():
            if getattr(getattr(embedding, "weight", None), "shape", None) == table.shape:
                embedding.weight.data = table.clone()
        model.save_pretrained(folder / f"{name}-equal")
        model.save_pretrained(folder / f"{name}-sharded", max_shard_size=600)
        pickled(model, folder / f"{name}-bin")
        shards_pickled(model, folder / f"{name}-sharded-bin")
    # transformers 5 ties every T5; the folders of T5 1.1 are older.
    config = hf.T5Config(**T5, vocab_size=VOCABULARY, tie_word_embeddings=False)
    older(randomised(hf.T5ForConditionalGeneration(config)), folder / "t5-equal")
    config = hf.T5Config(**T5, vocab_size=VOCABULARY)
    randomised(hf.T5ForConditionalGeneration(config)).save_pretrained(folder / "t5-tied")


def randomised(model: Any) -> Any:
    """The model with numbers that no two weights share, biases among them."""
    for parameter in model.parameters():
        parameter.data.normal_(0.5, 0.3)
    return model


def pickled(model: Any, folder: Path) -> None:
    folder.mkdir()
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def shards_pickled(model: Any, folder: Path) -> None:
    folder.mkdir()
    model.config.save_pretrained(folder)
    state = model.state_dict()
    names = list(state)
    parts = names[:5], names[5:]
    files = [f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
    for part, file in zip(parts, files, strict=True):
        torch.save({name: state[name].clone() for name in part}, folder / file)
    placed = {name: file for part, file in zip(parts, files, strict=True) for name in part}
    index = {"metadata": {"total_size": 0}, "weight_map": placed}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def older(model: Any, folder: Path) -> None:
    """As transformers 4 wrote an untied T5: the flag is false, the head is stored."""
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    del config["scale_decoder_outputs"]
    config["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    del state["encoder.embed_tokens.weight"], state["decoder.embed_tokens.weight"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def judge(folder: Path) -> dict[str, Any]:
    """What transformers says of a folder, its logits, and how far Adam takes table and head."""
    kind = getattr(hf, json.loads((folder / "config.json").read_text())["architectures"][0])
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    model.eval()
    ids = torch.arange(10).reshape(2, 5) % VOCABULARY
    inputs = {"input_ids": ids}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids.flip(1)
    logits = model(**inputs).logits
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    found = {
        "wrong": {key: sorted(map(str, value)) for key, value in info.items() if value},
        "is_one": table is head,
        "tables": len({id(p) for n, p in named(model) if p.shape == table.shape}),
        "biases": len({id(p) for n, p in named(model) if tuple(p.shape) == (VOCABULARY,)}),
        "logits": logits.tolist(),
    }
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        model(**inputs).logits.square().mean().backward()
        optimizer.step()
    found["apart"] = float((table - head).abs().max())
    return found


def tied(kind: str) -> dict[str, Any]:
    """What a class ties, and the names of all its weights; nothing is allocated."""
    config = getattr(hf, kind).config_class()
    config.tie_word_embeddings = True
    with torch.device("meta"):
        model = getattr(hf, kind)(config)
    return {"pairs": model.all_tied_weights_keys, "names": list(model.state_dict())}


def flag(model_type: str) -> list[Any]:
    """Whether a config ties that does not say so, and one that says it does not."""
    kind = hf.CONFIG_MAPPING[model_type]
    try:
        configs = kind(), kind(tie_word_embeddings=False)
    except Exception as error:  # some must be told more
        return [str(error)]
    return [getattr(config, "tie_word_embeddings", False) for config in configs]


def named(model: Any) -> Any:
    return model.named_parameters(remove_duplicate=False)


if __name__ == "__main__":
    task, *arguments = sys.argv[1:]
    if task == "make":
        shutil.rmtree(arguments[0], ignore_errors=True)
        Path(arguments[0]).mkdir()
        make(Path(arguments[0]))
    elif task == "judge":
        print("FOUND" + json.dumps({name: judge(Path(name)) for name in arguments}))
    else:
        flags = {name: flag(name) for name in hf.CONFIG_MAPPING}
        print("FOUND" + json.dumps({"flags": flags, **{name: tied(name) for name in arguments}}))
