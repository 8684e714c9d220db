"""What people try that this tool does not open, by name, each with what to do instead."""

from __future__ import annotations

import pickletools
from collections.abc import Callable

from tiesurgeon.formats.probe import Probe


def _starts(*magics: bytes) -> Callable[[Probe], bool]:
    return lambda probe: probe.head.startswith(magics)


def _folder_with(*names: str) -> Callable[[Probe], bool]:
    return lambda probe: probe.is_folder and bool(probe.names & set(names))


def _is_text_of(*words: bytes) -> Callable[[Probe], bool]:
    return lambda probe: (
        probe.head.lstrip()[:1] == b"{" and all(word in probe.head for word in words)
    )


def _is_pickle(probe: Probe) -> bool:
    if not (len(probe.head) > 2 and probe.head[0] == 0x80 and probe.head[1] in range(2, 6)):
        return False
    try:
        next(pickletools.genops(probe.head))
    except ValueError:
        return False
    return True


# Models, but of kinds that tiesurgeon does not open; each with what to do instead.
OTHER_MODELS: tuple[tuple[str, Callable[[Probe], bool], str], ...] = (
    ("a GGUF model (llama.cpp)", _starts(b"GGUF"), "use the model it was made from"),
    ("a GGML model", _starts(b"lmgg", b"ggml", b"fmgg", b"tjgg"), "use the model it was made from"),
    (
        "a TensorFlow Lite model",
        lambda probe: probe.head[4:8] == b"TFL3",
        "use the Keras model it was converted from",
    ),
    (
        "a PEFT adapter",
        lambda probe: (
            "adapter_config.json" in probe.names or probe.path.name.startswith("adapter_model.")
        ),
        "merge it into its base model first (merge_and_unload)",
    ),
    (
        "a TensorFlow.js model",
        _is_text_of(b'"modelTopology"'),
        "use the Keras model it was converted from",
    ),
    (
        "the architecture of a Keras model, without weights",
        _is_text_of(b'"class_name"'),
        "give it as --config together with the weights file",
    ),
    (
        "a TensorFlow checkpoint",
        lambda probe: "checkpoint" in probe.names or probe.path.suffix == ".index",
        "load it into its model and save that as .keras or .h5",
    ),
    (
        "a frozen TensorFlow graph",
        lambda probe: probe.head[:1] == b"\x0a" and probe.path.suffix == ".pb",
        "use the Keras model it was made from",
    ),
    (
        "a Core ML model",
        lambda probe: probe.is_folder and "Manifest.json" in probe.names,
        "use the model it was converted from",
    ),
    ("an OpenVINO model", _starts(b'<?xml version="1.0"?>\n<net'), "use the ONNX or Keras model"),
)

# Not models at all, but often found under a model's name.
NO_MODELS: tuple[tuple[str, Callable[[Probe], bool], str], ...] = (
    (
        "a Git LFS pointer, not the file it points to",
        _starts(b"version https://git-lfs"),
        "run `git lfs pull`",
    ),
    (
        "an HTML page, so probably a failed download",
        lambda probe: probe.head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")),
        "download it again",
    ),
    ("a NumPy array", _starts(b"\x93NUMPY"), "give the model it belongs to"),
    (
        "NumPy arrays (.npz)",
        lambda probe: probe.is_zip and all(name.endswith(".npy") for name in probe.names),
        "give the model they belong to",
    ),
    (
        "compressed",
        _starts(b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd"),
        "unpack it first",
    ),
    ("a Python pickle, but not one that PyTorch wrote", _is_pickle, ""),
)
