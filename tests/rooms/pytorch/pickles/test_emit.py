"""A tree is written so that it decodes to the same tree, and Python and PyTorch load it."""

import pickle
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.rooms.pytorch.pickles.files import dumped, equal_language_model, saved
from tiesurgeon.errors import UnreadableFile
from tiesurgeon.rooms.pytorch.containers import open_container
from tiesurgeon.rooms.pytorch.pickles import emit
from tiesurgeon.rooms.pytorch.pickles.emit import encode
from tiesurgeon.rooms.pytorch.pickles.machine import decode
from tiesurgeon.rooms.pytorch.pickles.nodes import Global, Persistent, Record, children
from tiesurgeon.rooms.pytorch.pickles.numbers import storages_in

SHARED = ["shared"]
THINGS: dict[str, Any] = {
    "numbers": [0, 255, 256, 65535, 65536, -1, 2**31, -(2**31), 2**63, -(2**200), 1.5, True, None],
    "strings": ["", "a", "\u00e9\U0001f600", "x" * 300, "\ud800", b"", b"ab", bytearray(b"abc")],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((), ((),))],
    "shared": {"a": SHARED, "b": (SHARED, SHARED), SHARED[0]: SHARED},
    "long list": list(range(5003)),
    "long dict": {str(number): number for number in range(3001)},
    "ordered dict": OrderedDict(b=1, a=2),
    "default dict": defaultdict(list, a=[1]),
    "counter": Counter("abca"),
    "deque": deque([1, 2, 3], 5),
    "set": {"a"},
    "frozenset": frozenset("a"),
    "namespace": Namespace(a=1, b=[2]),
    "array": np.arange(6.0).reshape(2, 3),
    "complex": 1 + 2j,
    "slice": slice(1, 2),
}


def alike(one: Any, other: Any, seen: dict[int, int] | None = None) -> bool:
    """True if two trees are the same, down to which objects are one."""
    seen = {} if seen is None else seen
    if type(one) is not type(other):
        return False
    if not isinstance(one, (Record, list, tuple, dict, Persistent)) or one == ():
        return bool(one == other)
    if id(one) in seen:
        return seen[id(one)] == id(other)
    if id(other) in seen.values():
        return False
    seen[id(one)] = id(other)
    if isinstance(one, Record):
        opcodes = [[node.opcode, *(s.opcode for s in node.steps)] for node in (one, other)]
        if opcodes[0] != opcodes[1]:
            return False
    parts = [*children(one)], [*children(other)]
    return len(parts[0]) == len(parts[1]) and all(
        alike(a, b, seen) for a, b in zip(*parts, strict=True)
    )


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", THINGS)
def test_python_loads_what_is_written(name: str, protocol: int) -> None:
    data = dumped(THINGS[name], protocol)
    decoded = decode(data)
    written = encode(decoded.root, decoded.protocol)
    assert alike(decode(written).root, decoded.root)
    expected, found = pickle.loads(data), pickle.loads(written)
    assert type(found) is type(expected)
    assert str(found) == str(expected)
    if decoded.protocol >= 2:
        assert decode(written).protocol == decoded.protocol


@pytest.mark.parametrize("protocol", [2, 4])
def test_what_is_one_object_stays_one(protocol: int) -> None:
    found = pickle.loads(encode(decode(dumped(THINGS["shared"], protocol)).root, protocol))
    assert found["a"] is found["b"][0] is found["b"][1] is found["shared"]


def test_only_what_is_shared_is_put_in_the_memo() -> None:
    assert b"q" not in encode([["a"], ("b",)], 2)
    assert encode([SHARED, SHARED], 2).count(b"q") == 1


@pytest.mark.parametrize("protocol", [2, 4])
def test_what_holds_itself_is_written(protocol: int) -> None:
    ring: list[Any] = []
    ring += [ring, (ring,), {"ring": ring}]
    space = Namespace(ring=ring)
    space.own = space
    found = pickle.loads(encode(decode(dumped([space, ring], protocol)).root, protocol))
    assert found[0].own is found[0]
    assert found[1] is found[0].ring is found[1][0] is found[1][1][0] is found[1][2]["ring"]


def test_an_object_that_its_own_arguments_hold_is_written() -> None:
    arguments: list[Any] = []
    record = Record(pickle.REDUCE, [Global("collections", "deque"), (arguments,)])
    arguments += [record]
    again = decode(encode(record, 2)).root
    assert again.parts[1][0][0] is again


def test_deep_nesting_needs_no_recursion(monkeypatch: pytest.MonkeyPatch) -> None:
    name = Global("builtins", "list")
    deep: list[Any] = []
    for _ in range(5000):
        deep = [Record(pickle.REDUCE, [name, ({"a": deep},)])]
    data = encode(deep, 2)
    assert encode(decode(data).root, 2) == data
    monkeypatch.setattr(emit, "_DEEPEST", 1000)
    with pytest.raises(UnreadableFile, match="nested more than 1,000 levels deep"):
        encode(deep, 2)


def test_strings_of_python_2_stay_bytes() -> None:
    data = encode(decode(b"\x80\x02U\x02\xff\xfe.").root, 2)
    assert pickle.loads(data, encoding="bytes") == b"\xff\xfe"


def test_persistent_ids_are_written() -> None:
    storage = Persistent(("storage", "0"))
    data = encode([storage, storage], 2)
    one, other = decode(data).root
    assert one is other
    assert one.value == ("storage", "0")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "thing",
    [
        nn.Sequential(nn.Embedding(11, 3, padding_idx=2), nn.Linear(3, 11), nn.BatchNorm1d(11)),
        nn.Transformer(8, 2, 1, 1, 8, batch_first=True),
        equal_language_model(),
        equal_language_model().state_dict(),
        [torch.ones(2, 3).t(), torch.tensor(3), torch.zeros(0, 3), torch.ones(2).expand(5, 2)],
    ],
    ids=["sequential", "transformer", "own class", "state dict", "list"],
)
def test_torch_loads_what_is_written(thing: Any, legacy: bool, tmp_path: Path) -> None:
    container = open_container(saved(thing, tmp_path / "model.pt", legacy=legacy))
    decoded = decode(container.pickle)
    written = encode(decoded.root, decoded.protocol)
    assert alike(decode(written).root, decoded.root)
    storages = storages_in(decoded.root)
    container.extents({key: storage.dtype.itemsize for key, storage in storages.items()})
    container.write(tmp_path / "again.pt", written, storages.keys(), {}, {})
    again = torch.load(tmp_path / "again.pt", weights_only=False)
    assert str(again) == str(thing)


def test_torchscript_that_holds_itself_is_refused() -> None:
    record = Record(pickle.NEWOBJ, [Global("__torch__", "M"), ()])
    ring = [record]
    record.parts[1] = (ring,)
    with pytest.raises(UnreadableFile, match="holds itself"):
        encode(record, 2, for_torchscript=True)
