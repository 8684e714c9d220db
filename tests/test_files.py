"""An output is there whole or not at all, and nothing else is touched."""

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tiesurgeon.errors import OutputRefused
from tiesurgeon.files import converted_output, refuse_output, tied_output, writing, writing_folder

Writing = Callable[..., AbstractContextManager[Path]]


def fill(path: Path, text: str = "new") -> None:
    """A file, or a folder with one file in it."""
    if path.is_dir():
        path = path / "model.py"
    path.write_text(text)


def content(path: Path) -> str:
    return (path / "model.py" if path.is_dir() else path).read_text()


@pytest.fixture(params=[writing, writing_folder], ids=["file", "folder"])
def write(request: pytest.FixtureRequest) -> Writing:
    made: Writing = request.param
    return made


def test_what_was_written_appears_under_its_name(write: Writing, tmp_path: Path) -> None:
    out = tmp_path / "model.h5"
    with write(out) as temporary:
        fill(temporary)
        assert not out.exists()
        assert temporary.name == out.name  # frameworks go by the suffix
    assert content(out) == "new"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing(
    write: Writing, tmp_path: Path, error: type[BaseException]
) -> None:
    def fail() -> None:
        with write(tmp_path / "model.h5") as temporary:
            fill(temporary)
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_older_output(
    write: Writing, tmp_path: Path, error: type[BaseException]
) -> None:
    out = tmp_path / "model.h5"
    with write(out) as temporary:
        fill(temporary, "old")

    def fail() -> None:
        with write(out, force=True) as temporary:
            fill(temporary)
            raise error

    with pytest.raises(error):
        fail()
    assert content(out) == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_an_existing_output_is_refused_without_force(write: Writing, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with write(out) as temporary:
        fill(temporary, "old")
    with pytest.raises(OutputRefused, match="exists; give --force or another output"), write(out):
        pytest.fail("nothing should be done")
    assert content(out) == "old"
    with write(out, force=True) as temporary:
        fill(temporary)
    assert content(out) == "new"
    assert list(tmp_path.iterdir()) == [out]


def test_an_output_that_came_meanwhile_is_not_replaced(write: Writing, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def race() -> None:
        with write(out) as temporary:
            fill(temporary)
            out.write_text("someone else's")

    with pytest.raises(OutputRefused, match="exists"):
        race()
    assert out.read_text() == "someone else's"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("name", ["model.h5", "link.h5", "hard.h5", "folder/../model.h5"])
def test_the_input_is_never_the_output(tmp_path: Path, name: str) -> None:
    model = tmp_path / "model.h5"
    model.write_text("weights")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.h5").symlink_to(model)
    (tmp_path / "hard.h5").hardlink_to(model)
    with pytest.raises(OutputRefused, match="is the input"):
        refuse_output(tmp_path / name, force=True, inputs=[model])


def test_a_dangling_link_is_an_existing_output(tmp_path: Path) -> None:
    (tmp_path / "link.h5").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputRefused, match="exists"):
        refuse_output(tmp_path / "link.h5")


def test_a_missing_folder_is_named(write: Writing, tmp_path: Path) -> None:
    with pytest.raises(OutputRefused, match=r"there is no folder .*nowhere"):
        write(tmp_path / "nowhere" / "model.h5").__enter__()


def test_a_folder_that_cannot_be_written_to(
    write: Writing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(**_: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))

    monkeypatch.setattr("tempfile.mkdtemp", denied)  # root may write wherever it likes
    with pytest.raises(OutputRefused, match=r"model.h5: Permission denied; give another output"):
        write(tmp_path / "model.h5").__enter__()


def test_a_full_disk_is_said_in_one_line(write: Writing, tmp_path: Path) -> None:
    def fill_up() -> None:
        with write(tmp_path / "model.h5") as temporary:
            fill(temporary)
            raise OSError(errno.ENOSPC, "a library's many\nlines")

    with pytest.raises(OutputRefused, match=r"model.h5: No space left on device"):
        fill_up()
    assert list(tmp_path.iterdir()) == []


def test_a_file_does_not_replace_a_folder_nor_a_folder_a_file(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.touch()
    with pytest.raises(OutputRefused, match="is a folder"):
        writing(folder, force=True).__enter__()
    with pytest.raises(OutputRefused, match="is a file"):
        writing_folder(file, force=True).__enter__()


def test_force_does_not_delete_what_it_does_not_write(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "model.py").write_text("old")
    (home / "thesis.tex").write_text("three years")

    def overwrite() -> None:
        with writing_folder(home, force=True) as temporary:
            fill(temporary)

    with pytest.raises(OutputRefused, match=r"holds thesis.tex"):
        overwrite()
    assert sorted(path.name for path in home.iterdir()) == ["model.py", "thesis.tex"]
    assert content(home) == "old"
    assert list(tmp_path.iterdir()) == [home]


@pytest.mark.parametrize("name", [".", ".."])
def test_the_current_folder_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputRefused, match="holds the current folder"):
        writing_folder(Path(name), force=True).__enter__()


@pytest.mark.parametrize(
    ("model", "tied"),
    [
        ("a/model.h5", "a/model.tied.h5"),
        ("model.keras", "model.tied.keras"),
        ("v1.2.keras", "v1.2.tied.keras"),
        ("model.weights.h5", "model.tied.weights.h5"),
        ("model", "model.tied"),
    ],
)
def test_tied_outputs_stand_beside_the_input(model: str, tied: str) -> None:
    assert tied_output(Path(model)) == Path(tied)


@pytest.mark.parametrize(
    ("model", "to", "converted"),
    [
        ("a/model.h5", "torch", "a/model_torch"),
        ("a/model.h5", "keras", "a/model.keras"),
        ("model.keras", "h5", "model.h5"),
        ("model.h5", "h5", "model.converted.h5"),
        ("model.keras", "keras", "model.converted.keras"),
        ("model.weights.h5", "torch", "model_torch"),
    ],
)
def test_converted_outputs_stand_beside_the_input(model: str, to: str, converted: str) -> None:
    assert converted_output(Path(model), to) == Path(converted)


def test_a_model_that_is_the_current_folder_has_a_name_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tied_output(Path()).parent == tmp_path.parent
