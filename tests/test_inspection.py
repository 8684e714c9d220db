"""`inspect` on the committed samples and on what their neighbours in one command share."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.inspection import Inspection, Inspections, inspect, inspect_many

# Of each sample: writer's major version, parameters, the pairs in order, and what is used twice.
SAMPLES = {
    "char_lm.h5": ("3", 42_183, [("embedding", "dense", "different")], []),
    "char_lm.keras": ("3", 42_183, [("embedding", "dense", "different")], []),
    "char_lm_equal.h5": ("3", 42_183, [("embedding", "dense", "equal")], []),
    "char_lm_equal.keras": ("3", 42_183, [("embedding", "dense", "equal")], []),
    "gru_lm.keras": ("3", 71_141, [("embedding", "output", "different")], []),
    "autoencoder.keras": ("3", 24_395, [("encoder", "decoder", "different")], []),
    "multi_input.keras": ("3", 24_173, [], ["embedding/embeddings"]),
    "siamese.keras": (
        "3",
        20_017,
        [],
        ["embedding/embeddings", "lstm/kernel", "lstm/recurrent_kernel", "lstm/bias"],
    ),
    "keras2_lm.h5": ("2", 33_991, [("embedding", "dense", "different")], []),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_seen_as_what_it_is(samples: Path, name: str) -> None:
    version, parameters, pairs, tied = SAMPLES[name]
    found = inspect(samples / name)
    assert found.writer.startswith(f"keras {version}")
    assert found.unique_parameters == found.total_parameters == parameters
    assert found.unique_bytes == found.stored_bytes == 4 * parameters
    assert [(c.source, c.target, c.match) for c in found.candidates] == pairs
    assert [tie.source for tie in found.ties if tie.uses == 2] == tied
    assert found.has_values


def test_the_encoder_decoder_sample(samples: Path) -> None:
    found = inspect(samples / "seq2seq.keras").candidates
    assert [(c.source, c.target) for c in found] == [
        ("decoder_embedding", "output"),
        ("encoder_embedding", "output"),
        ("encoder_embedding", "decoder_embedding"),
    ]


def test_samples_are_inspected_without_any_framework(
    samples: Path, python_without_frameworks: Callable[..., object]
) -> None:
    code = (
        "from pathlib import Path\n"
        "from tiesurgeon import inspection, report\n"
        "for path in sys.argv[1:]:\n"
        "    found = inspection.inspect_many([Path(path)])\n"
        "    report.as_text(found), report.as_json(found), report.as_html(found)\n"
        "loaded = {'tensorflow', 'keras', 'torch'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    result = python_without_frameworks(code, *(samples / name for name in SAMPLES))
    assert getattr(result, "returncode") == 0, result  # noqa: B009


def test_no_values_reads_no_weight(samples: Path) -> None:
    found = inspect(samples / "char_lm.h5", values=False)
    assert not found.has_values
    assert [(c.source, c.match) for c in found.candidates] == [("embedding", None)]


def test_files_of_one_model_share_all_their_matrices(samples: Path, tmp_path: Path) -> None:
    shutil.copy(samples / "char_lm.h5", tmp_path / "old.h5")
    found = inspect_many([tmp_path / "old.h5", samples / "char_lm.keras"])
    assert isinstance(found, Inspections)
    assert [(c.source, c.target) for c in found.between] == [
        ("old:lstm/kernel", "char_lm:lstm/kernel"),
        ("old:lstm/recurrent_kernel", "char_lm:lstm/recurrent_kernel"),
        ("old:embedding", "char_lm:embedding"),
        ("old:dense", "char_lm:dense"),
    ]
    assert {c.match for c in found.between} == {"equal"}


def test_files_of_one_stem_are_told_apart_by_their_path(samples: Path) -> None:
    paths = [samples / "char_lm.h5", samples / "char_lm.keras"]
    found = inspect_many(paths)
    assert isinstance(found, Inspections)
    assert found.between[0].source.startswith(f"{paths[0]}:")
    assert found.between[0].target.startswith(f"{paths[1]}:")


def test_files_of_different_models_share_nothing(samples: Path) -> None:
    found = inspect_many([samples / "siamese.keras", samples / "char_lm.h5"])
    assert isinstance(found, Inspections)
    assert found.between == ()


def test_what_is_equal_within_a_file_is_not_between_files(samples: Path) -> None:
    found = inspect_many([samples / "char_lm_equal.h5", samples / "siamese.keras"])
    assert isinstance(found, Inspections)
    assert found.between == ()


def test_one_file_alone_is_an_inspection(samples: Path) -> None:
    assert isinstance(inspect_many([samples / "char_lm.h5"]), Inspection)


def test_an_hdf5_file_of_something_else_is_said_to_be_so(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["measurements"] = np.zeros((11, 3))
    with pytest.raises(UnreadableFile, match="not one that Keras wrote"):
        inspect(path)


def test_a_forty_megabyte_file_is_compared_in_little_memory(tmp_path: Path) -> None:
    """The weights are never held as a whole: the peak stays far below their size."""
    import tracemalloc

    table = np.random.default_rng(3).normal(size=(50_021, 101)).astype(np.float32)
    path = tmp_path / "big.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"embedding", b"out"]
        for layer, weight, array in (
            ("embedding", "embeddings:0", table),
            ("out", "kernel:0", np.ascontiguousarray(table.T)),
        ):
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{weight}".encode()]
            group[f"{layer}/{weight}"] = array
    del table
    tracemalloc.start()
    started = time.process_time()
    found = inspect(path)
    seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(c.source, c.target, c.match) for c in found.candidates] == [
        ("embedding", "out", "equal")
    ]
    assert peak < 10e6
    assert seconds < 3
