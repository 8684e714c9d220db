"""The package as a stranger installs it: without a framework, from a clean environment."""

import os
import re
import subprocess
import tomllib
import venv
from pathlib import Path

import pytest

DOWNLOADED = ["click", "rich", "numpy", "h5py", "ml_dtypes", "safetensors", "onnx", "hatchling"]


def clean() -> dict[str, str]:
    """Nothing of this environment's Python."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


@pytest.mark.real
def test_the_base_install_inspects_a_model(root: Path, samples: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True, symlinks=os.name != "nt")
    programs = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")

    def run(program: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
        command = [str(programs / program), *map(str, args)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, env=clean()
        )

    install = ("-m", "pip", "install", "-qq", "--constraint", root / "constraints.txt")
    download = run("python", *install, *DOWNLOADED)
    if download.returncode != 0:
        pytest.skip(f"nothing could be downloaded: {download.stderr.strip().splitlines()[-1]}")
    # All is there now, so that from here on nothing but the package itself can fail.
    built = run("python", *install, "--no-index", "--no-build-isolation", root)
    assert built.returncode == 0, built.stderr

    result = run("tiesurgeon", "inspect", samples / "char_lm.h5")
    assert (result.returncode, result.stderr) == (0, "")
    assert "embedding" in result.stdout
    heavy = run("python", "-c", "import tensorflow, keras, torch")
    assert "No module named" in heavy.stderr


def test_the_base_dependencies_are_no_heavier_than_promised(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {re.split(r"[<>=!~\[ ]", each)[0] for each in project["dependencies"]}
    assert named == set(DOWNLOADED) - {"hatchling"}
