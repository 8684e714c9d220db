"""Folders that are damaged or made to deceive: one line, at once, in little memory."""

import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.rooms.keras.conftest import little_memory
from tests.rooms.keras.stock import randomised, saved
from tests.rooms.savedmodel import models
from tests.rooms.savedmodel.conftest import Saved
from tests.rooms.savedmodel.crafting import entry, field, rewrite
from tiesurgeon.errors import TiesurgeonError
from tiesurgeon.rooms.savedmodel import extra
from tiesurgeon.rooms.savedmodel.read import read
from tiesurgeon.rooms.savedmodel.surgery import write_savedmodel

__all__ = ["little_memory"]
GRAPH = b"_CHECKPOINTABLE_OBJECT_GRAPH"


@pytest.fixture
def siamese(copied: Saved) -> Path:
    return copied("siamese")


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that tiesurgeon wrote."""
    folder = tmp_path_factory.mktemp("ours")
    path = saved(randomised(models.KERAS_3["sequential"]()), folder / "model.keras")
    (folder / "model").mkdir()
    write_savedmodel(path, folder / "model", {})
    return folder / "model"


def attempt(path: Path) -> str | None:
    """The one line, or None where the folder could be read with all its numbers."""
    begin = time.monotonic()
    try:
        for variable in read(path).graph.variables():
            variable.storage.load().tobytes()
    except TiesurgeonError as error:
        line = str(error)
        assert "\n" not in line
        assert str(path) in line
        return line
    finally:
        assert time.monotonic() - begin < 20
    return None


def refused(path: Path, words: str) -> None:
    line = attempt(path)
    assert line is not None
    assert words in line


def index(path: Path) -> Path:
    return path / "variables" / "variables.index"


def shard(path: Path) -> Path:
    return path / "variables" / "variables.data-00000-of-00001"


def objects(path: Path, *nodes: bytes) -> Path:
    """The folder with other objects, each a SavedObject."""
    graph = b"".join(field(1, node) for node in nodes)
    (path / "saved_model.pb").write_bytes(field(2, field(7, graph)))
    (path / "keras_metadata.pb").unlink(missing_ok=True)
    return path


def child(number: int, name: str) -> bytes:
    return field(1, field(1, number) + field(2, name))


def variable(name: str) -> bytes:
    return field(7, field(6, name))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: (path / "saved_model.pb").unlink(), "saved_model.pb is missing"),
        (lambda path: (path / "saved_model.pb").write_bytes(b""), "has 0 bytes"),
        (lambda path: (path / "saved_model.pb").write_bytes(b"\x08\x01"), "holds no graph"),
        (lambda path: index(path).unlink(), "variables.index is missing"),
        (lambda path: shard(path).unlink(), "is missing; copy the whole folder"),
        (lambda path: os.truncate(shard(path), 100), "cut short"),
        (lambda path: os.truncate(index(path), 100), "cut short"),
        (lambda path: (path / "keras_metadata.pb").write_bytes(b""), "has 0 bytes"),
    ],
)
def test_what_is_missing(siamese: Path, change: Callable[[Path], None], words: str) -> None:
    change(siamese)
    refused(siamese, words)


def test_a_pipe_in_the_place_of_a_shard(siamese: Path) -> None:
    """It would be waited for without end."""
    shard(siamese).unlink()
    os.mkfifo(shard(siamese))
    refused(siamese, "is missing")


def test_a_variable_that_is_gone(siamese: Path) -> None:
    def drop(entries: dict[bytes, bytes]) -> None:
        del entries[next(key for key in entries if key.endswith(b"VARIABLE_VALUE"))]

    rewrite(index(siamese), drop)
    refused(siamese, "is not in its index")


def test_shapes_that_lie_to_the_config(siamese: Path) -> None:
    def turn(entries: dict[bytes, bytes]) -> None:
        key = b"variables/0/.ATTRIBUTES/VARIABLE_VALUE"
        entries[key] = entry((7, 3), size=84)

    rewrite(index(siamese), turn)
    refused(siamese, "dense/kernel has shape [7, 3]")


@pytest.mark.parametrize("number", [99, 1 << 31, (1 << 64) - 1])
def test_references_to_objects_that_are_not_there(siamese: Path, number: int) -> None:
    refused(objects(siamese, child(number, "layer-0")), "refers to what it does not hold")


def forget_objects(entries: dict[bytes, bytes]) -> None:
    del entries[GRAPH]


def test_objects_that_hold_each_other(siamese: Path) -> None:
    nodes = [child(1, "a") + child(0, "self"), child(0, "b") + variable("w")]
    objects(siamese, *nodes)
    rewrite(index(siamese), forget_objects)
    assert attempt(siamese) is None


@pytest.mark.usefixtures("little_memory")
def test_objects_in_a_chain_without_end(siamese: Path) -> None:
    """Its paths would take gigabytes."""
    nodes = (child(number + 1, "next") for number in range(99_999))
    refused(objects(siamese, *nodes, b""), "nested more deeply")


@pytest.mark.usefixtures("little_memory")
def test_more_objects_than_any_model_has(siamese: Path) -> None:
    nodes = field(1, b"") * (1 << 20)
    (siamese / "saved_model.pb").write_bytes(field(2, field(7, nodes)))
    refused(siamese, "has more than 262,144 objects")


@pytest.mark.usefixtures("little_memory")
def test_numbers_that_are_claimed(siamese: Path) -> None:
    huge = entry((1 << 20, 1 << 20), size=1 << 42)

    def claim(entries: dict[bytes, bytes]) -> None:
        entries.update({key: huge for key in entries if key})

    rewrite(index(siamese), claim)
    assert attempt(siamese) is not None


def test_messages_within_messages(siamese: Path) -> None:
    data = b""
    for _ in range(5_000):
        data = field(1, data)
    attempt(objects(siamese, data))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{", "null", "7", '{"class_name": 1}', '{"class_name": "Functional"}']
)
def test_metadata_that_is_no_config(siamese: Path, text: str) -> None:
    node = field(2, 0) + field(4, "_tf_keras_network") + field(5, text)
    (siamese / "keras_metadata.pb").write_bytes(field(1, node))
    attempt(siamese)


def test_metadata_of_objects_that_are_not_there(siamese: Path) -> None:
    (siamese / "keras_metadata.pb").write_bytes(field(1, field(2, 1 << 40)))
    refused(siamese, "speaks of objects that saved_model.pb does not have")


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "{}", '{"weights": 7}'])
@pytest.mark.parametrize("name", [extra.CONFIG, extra.METADATA])
def test_documents_of_our_own_that_lie(ours: Path, tmp_path: Path, name: Path, text: str) -> None:
    path = Path(shutil.copytree(ours, tmp_path / "model"))
    (path / name).write_text(text)
    assert attempt(path) is not None


@pytest.mark.parametrize(
    "names",
    [{"dense": ["frozen/kernel"]}, {"dense": 7}, {"dense": [7, ["x"]]}, {7: ["dense/kernel"]}, []],
)
def test_names_of_weights_that_lie(ours: Path, tmp_path: Path, names: object) -> None:
    path = Path(shutil.copytree(ours, tmp_path / "model"))
    (path / extra.METADATA).write_text(json.dumps({"weights": names}))
    assert attempt(path) is not None


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes with a few of them changed, gone, or more than there were."""
    found = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(found)) if found else 0
        many = bytes(rng.choice((0, 127, 128, 255)) for _ in range(rng.randrange(11)))
        found[place : place + rng.randrange(9)] = many
    return bytes(found)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("seed", range(4))
def test_damage_at_random(keras2: Saved, ours: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    for number in range(75):
        source = rng.choice((keras2("siamese"), keras2("subclassed"), ours))
        path = Path(shutil.copytree(source, tmp_path / str(number)))
        file = rng.choice(sorted(one for one in path.rglob("*") if one.is_file()))
        if file == index(path) and rng.random() < 0.8:

            def change(entries: dict[bytes, bytes]) -> None:
                key = rng.choice(list(entries))
                entries[key] = damaged(entries[key], rng)

            rewrite(file, change)
        else:
            file.write_bytes(damaged(file.read_bytes(), rng))
        attempt(path)
