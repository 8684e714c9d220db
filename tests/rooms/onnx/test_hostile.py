"""Files that are damaged or made to deceive: one line that says what is wrong, and nothing read."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.rooms.onnx.models import (
    FLOAT,
    INT64,
    Tensors,
    V,
    language_model,
    model,
    numbers,
    save,
    value,
)
from tiesurgeon.errors import TiesurgeonError, UnreadableFile
from tiesurgeon.rooms.onnx.read import read


def refusal(path: Path) -> str:
    with pytest.raises(UnreadableFile) as caught:
        read(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line


def outside(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return save(language_model(), folder / "m.onnx", outside=True)


def with_entries(folder: Path, **entries: str) -> Path:
    """A model whose first tensor says other things of its external data."""
    path = outside(folder)
    made = onnx.load(path, load_external_data=False)
    tensor = made.graph.initializer[0]
    kept = {entry.key: entry.value for entry in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, text in kept.items():
        tensor.external_data.add(key=key, value=text)
    path.write_bytes(made.SerializeToString())
    return path


def test_data_in_its_own_folder_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    path = with_entries(folder, location="below/data")
    (folder / "below").mkdir()
    (folder / "m.onnx.data").rename(folder / "below" / "data")
    made = onnx.load(path, load_external_data=False)
    del made.graph.initializer[1:]
    del made.graph.node[2:]
    made.graph.output[0].CopyFrom(value("hidden", FLOAT, "batch", "time", 3))
    path.write_bytes(made.SerializeToString())
    [variable] = read(path).graph.variables()
    np.testing.assert_array_equal(variable.storage.load(), numbers(V, 3))


@pytest.mark.parametrize(
    "location",
    ["/etc/passwd", "../secret", "a/../../secret", "C:\\secret", "..\\secret", "", "\\\\host\\x"],
)
def test_data_outside_of_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(4096))
    path = with_entries(tmp_path / "model", location=location)
    assert "outside of the model's folder" in refusal(path)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_data_behind_a_symbolic_link_is_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "data").write_bytes(bytes(4096))
    location = "link" if what == "file" else "link/data"
    path = with_entries(tmp_path / "model", location=location)
    target = tmp_path / "secret" / "data" if what == "file" else tmp_path / "secret"
    (path.parent / "link").symlink_to(target)
    assert "symbolic link" in refusal(path)


def test_data_behind_a_hard_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(4096))
    path = with_entries(tmp_path / "model", location="link")
    os.link(tmp_path / "secret", path.parent / "link")
    assert "hard link" in refusal(path)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"location": "nowhere"}, "there is no such file beside"),
        ({"location": "."}, "outside of the model's folder"),
        ({"offset": "100000"}, "ends at byte 100,132 of m.onnx.data, which has"),
        ({"offset": "-4"}, "'-4' as the offset"),
        ({"offset": "9" * 30}, "as the offset"),
        ({"length": "4"}, "has 4 bytes of external data, and its shape needs 132"),
        ({"length": "many"}, "'many' as the length"),
    ],
)
def test_external_data_that_does_not_fit_is_refused(
    tmp_path: Path, entries: dict[str, str], reason: str
) -> None:
    assert reason in refusal(with_entries(tmp_path, **entries))


def changed(change: Callable[[onnx.ModelProto], object]) -> Callable[[], bytes]:
    def make() -> bytes:
        made = language_model()
        change(made)
        return made.SerializeToString()

    return make


def table_with(**fields: object) -> Callable[[onnx.ModelProto], None]:
    def change(made: onnx.ModelProto) -> None:
        tensor = made.graph.initializer[0]
        for name, content in fields.items():
            if isinstance(content, list):
                tensor.ClearField(name)
                getattr(tensor, name).extend(content)
            else:
                setattr(tensor, name, content)

    return change


def looping(made: onnx.ModelProto) -> None:
    made.graph.node[1].input[0] = "logits"


def made_twice(made: onnx.ModelProto) -> None:
    made.graph.node[1].output[0] = "embedded"


def taking_nothing(made: onnx.ModelProto) -> None:
    made.graph.node[1].input[0] = "nobody"


def returning_nothing(made: onnx.ModelProto) -> None:
    made.graph.output[0].name = "nobody"


def unpacked_floats(made: onnx.ModelProto) -> None:
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.float_data.extend([0.0] * 32)


def recursive(made: onnx.ModelProto) -> None:
    call = helper.make_node("Again", ["x"], ["y"], domain="mine")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    made.functions.append(helper.make_function("mine", "Again", ["x"], ["y"], [call], opsets))
    made.graph.node[1].op_type, made.graph.node[1].domain = "Again", "mine"


def doubling(made: onnx.ModelProto) -> None:
    """Forty functions that each call the next one twice."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    for number in range(40):
        op = f"F{number + 1}" if number < 39 else "Tanh"
        domain = "mine" if number < 39 else ""
        calls = [
            helper.make_node(op, ["x"], ["z"], domain=domain),
            helper.make_node(op, ["z"], ["y"], domain=domain),
        ]
        made.functions.append(
            helper.make_function("mine", f"F{number}", ["x"], ["y"], calls, opsets)
        )
    made.graph.node[1].op_type, made.graph.node[1].domain = "F0", "mine"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (changed(table_with(dims=[V, 4])), "holds 132 bytes, and its shape (11, 4) needs 176"),
        (changed(table_with(dims=[1 << 40, 1 << 20])), "needs"),
        (changed(table_with(dims=[-1, 3])), "has the shape (-1, 3)"),
        (changed(table_with(data_type=99)), "data type 99"),
        (changed(table_with(data_type=0)), "data type 0"),
        (changed(unpacked_floats), "holds 32 numbers, and its shape (11, 3) needs 33"),
        (changed(looping), "has a cycle through node '/Tanh'"),
        (changed(made_twice), "'embedded' is made by two nodes"),
        (changed(taking_nothing), "takes 'nobody', which nothing in it makes"),
        (changed(returning_nothing), "output 'nobody' is made by no node"),
        (changed(recursive), "unfold to more"),
        (changed(doubling), "unfold to more"),
        (lambda: onnx.ModelProto(ir_version=8).SerializeToString(), "holds no graph"),
        (lambda: b"", "the file is empty"),
        (lambda: b"\x08\x08" + b"\xff" * 64, "does not end"),
        (lambda: b"\x0b" * 64, "starts no field"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, make: Callable[[], bytes], reason: str
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(make())
    assert reason in refusal(path)


def test_two_places_for_one_tensors_numbers_are_refused(tmp_path: Path) -> None:
    path = outside(tmp_path)
    made = onnx.load(path, load_external_data=False)
    made.graph.initializer[0].raw_data = bytes(132)
    path.write_bytes(made.SerializeToString())
    assert "holds numbers here and elsewhere" in refusal(path)


def test_a_file_cannot_point_at_numbers_that_are_not_its_own(tmp_path: Path) -> None:
    """The way the reader marks what it left in the file is drawn anew each time."""
    path = with_entries(tmp_path, location="payload 0000000000000000", offset="0")
    assert "no such file" in refusal(path)


@pytest.mark.parametrize("large", [False, True])
def test_a_file_cut_short_anywhere_is_refused_or_read(tmp_path: Path, large: bool) -> None:
    rows = 997 if large else V
    made = model(
        [helper.make_node("Gather", ["E", "ids"], ["y"])],
        [value("ids", INT64, "n")],
        [value("y", FLOAT, "n", 3)],
        {"E": numbers(rows, 3)},
    )
    data = made.SerializeToString()
    path = tmp_path / "m.onnx"
    steps = range(1, len(data), max(len(data) // 97, 1))
    for end in steps:
        path.write_bytes(data[:end])
        with pytest.raises(TiesurgeonError) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_any_byte_may_be_wrong(tmp_path: Path) -> None:
    data = bytearray(language_model().SerializeToString())
    path = tmp_path / "m.onnx"
    rng = np.random.default_rng(0)
    for place in range(len(data)):
        broken = bytearray(data)
        broken[place] ^= int(rng.integers(1, 256))
        path.write_bytes(broken)
        with contextlib.suppress(UnreadableFile):  # nothing else may be raised
            for variable in read(path).graph.variables():
                variable.storage.load()


def test_a_tensor_of_strings_is_no_weight(tmp_path: Path) -> None:
    made = language_model()
    strings = helper.make_tensor("words", TensorProto.STRING, [2], ["a", "b"])  # type: ignore[list-item]
    made.graph.initializer.append(strings)
    made.graph.node.append(helper.make_node("Identity", ["words"], ["w"]))
    made.graph.output.append(value("w", TensorProto.STRING, 2))
    names = [variable.name for variable in read(save(made, tmp_path / "m.onnx")).graph.variables()]
    assert "words" not in names


def test_scales_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    tensors: Tensors = {"q": np.zeros((V, 3), np.int8), "s": np.ones(4, np.float32)}
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["E"], axis=0),
        helper.make_node("Gather", ["E", "ids"], ["y"]),
    ]
    ends = [value("ids", INT64, "n")], [value("y", FLOAT, "n", 3)]
    path = save(model(nodes, *ends, tensors), tmp_path / "m.onnx")
    assert "has 4 scales, expected 11" in refusal(path)


def test_numbers_as_onnx_packs_them_are_not_mistaken(tmp_path: Path) -> None:
    """float_data in two chunks, which protobuf joins: left to protobuf, and right."""
    table = numbers(997, 3).ravel()
    chunks = [numpy_helper.from_array(part).raw_data for part in (table[:1000], table[1000:])]

    def field(number: int, data: bytes) -> bytes:
        length, out = len(data), bytearray([number << 3 | 2])
        while length >= 0x80:
            out.append(length & 0x7F | 0x80)
            length >>= 7
        return bytes(out + bytes([length])) + data

    rest = TensorProto(name="E", data_type=FLOAT, dims=[997, 3]).SerializeToString()
    tensor = TensorProto.FromString(rest + field(4, chunks[0]) + field(4, chunks[1]))
    assert len(tensor.float_data) == len(table)
    made = model(
        [helper.make_node("Gather", ["E", "ids"], ["y"])],
        [value("ids", INT64, "n")],
        [value("y", FLOAT, "n", 3)],
        {},
    )
    graph = made.graph.SerializeToString() + field(
        5, rest + field(4, chunks[0]) + field(4, chunks[1])
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(
        made.SerializeToString()
        + field(7, graph[:0])
        + field(7, field(5, rest + field(4, chunks[0]) + field(4, chunks[1])))
    )
    [variable] = read(path).graph.variables()
    np.testing.assert_array_equal(variable.storage.load().ravel(), table)
