"""Hostile pickles of every kind: nothing runs, nothing large is allocated, one line says why."""

import builtins
import contextlib
import os
import pickle
import struct
import subprocess
import sys
from collections import OrderedDict, deque
from pathlib import Path

import pytest

from tests.rooms.pytorch.pickles.files import Call, dumped, with_pickle
from tiesurgeon.errors import TiesurgeonError, UnreadableFile
from tiesurgeon.rooms.pytorch.pickles import machine, read_pickled
from tiesurgeon.rooms.pytorch.pickles.machine import decode
from tiesurgeon.rooms.pytorch.pickles.nodes import ByteString, Global, Persistent, Record

HUGE = struct.pack("<Q", 1 << 60)
PROTO = b"\x80\x04"


class Slotted:
    """An object that is filled by BUILD."""

    def __init__(self) -> None:
        self.value = 3


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_is_itself(protocol: int) -> None:
    shared = [1, 2**40, -3, 2.5, True, None, "\u00e9", ("a", (), (1,), (1, 2), (1, 2, 3, 4))]
    data = {"one": shared, "two": shared, 3: {"x": []}}
    root = decode(dumped(data, protocol)).root
    assert root == data
    assert root["one"] is root["two"]


@pytest.mark.parametrize("protocol", range(6))
def test_an_object_is_a_record_of_how_it_is_made(protocol: int) -> None:
    root = decode(dumped(Slotted(), protocol)).root
    assert type(root) is Record
    assert root.steps[-1].opcode == pickle.BUILD
    assert root.steps[-1].values == [{"value": 3}]


def test_batches_of_an_objects_items_are_one_step() -> None:
    items = OrderedDict((str(number), number) for number in range(2503))
    root = decode(dumped(items)).root
    [step] = root.steps
    assert step.opcode == pickle.SETITEMS
    assert len(step.values) == 2 * 2503


def test_appending_to_an_object_is_a_step() -> None:
    root = decode(dumped(deque([1, 2]))).root
    assert [step.values for step in root.steps] == [[1, 2]]


@pytest.mark.parametrize("protocol", [2, 4])
def test_sets_keep_their_order(protocol: int) -> None:
    root = decode(dumped({"only"}, protocol)).root
    assert type(root) is Record
    assert type(decode(dumped(frozenset({"only"}), protocol)).root) is Record


def test_strings_of_python_2() -> None:
    assert decode(b"U\x02ab.").root == "ab"
    assert decode(b"S'a\\xc3\\xa9'\n.").root == "a\u00e9"
    assert type(decode(b"U\x01\xff.").root) is ByteString


def test_a_persistent_id_is_kept() -> None:
    for data in (b"\x80\x02X\x01\0\0\0aQ.", b"Pa\n."):
        root = decode(data).root
        assert type(root) is Persistent
        assert root.value == "a"


CALLS = {
    "os.system": dumped(Call(os.system, "touch RAN")),
    "eval": dumped(Call(builtins.eval, "open('RAN', 'w')")),
    "exec": dumped(Call(builtins.exec, "open('RAN', 'w')")),
    "nested": dumped(Call(getattr, Call(builtins.__import__, "os"), "system")),
    "open": dumped(Call(builtins.open, "RAN", "w")),
    "inst": b"(S'touch RAN'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'touch RAN'\no.",
    "stack global": PROTO + b"\x8c\x02os\x8c\x06system\x93\x8c\x09touch RAN\x85R.",
    "newobj": b"\x80\x02cos\nsystem\nX\x09\0\0\0touch RAN\x85\x81.",
    "newobj_ex": PROTO + b"\x8c\x02os\x8c\x06system\x93\x8c\x09touch RAN\x85}\x92.",
    "build": b"\x80\x02cos\nsystem\n)\x81}X\x01\0\0\0aX\x01\0\0\0bsb.",
    "protocol 0": b"cos\nsystem\n(S'touch RAN'\ntR.",
    "call within a state dict": dumped({"weight": Call(os.system, "touch RAN")}),
}


@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_called(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    decode(CALLS[name])
    with pytest.raises(TiesurgeonError) as caught:
        read_pickled(with_pickle(tmp_path / "evil.pt", CALLS[name]))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["evil.pt"]


def test_nothing_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unwanted.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    root = decode(b"\x80\x02cunwanted\nthing\n)R.").root
    assert root.parts[0] == Global("unwanted", "thing")
    assert "unwanted" not in sys.modules


REFUSED = {
    "empty": b"",
    "only protocol": b"\x80\x02",
    "no stop": b"\x80\x02}",
    "protocol 99": b"\x80\x63}.",
    "unknown opcode": b"\x80\x02\xff.",
    "empty stack": b"\x80\x02.",
    "reduce of nothing": b"\x80\x02R.",
    "mark missing": b"\x80\x02t.",
    "unknown memo": b"\x80\x02h\x07.",
    "ext1": b"\x80\x02\x82\x01.",
    "ext2": b"\x80\x02\x83\x01\x01.",
    "ext4": b"\x80\x02\x84\x01\x01\x01\x01.",
    "next buffer": b"\x80\x05\x97.",
    "readonly buffer": b"\x80\x05C\x01a\x98.",
    "append to a number": b"\x80\x02K\x01K\x02a.",
    "build a list": b"\x80\x02]}b.",
    "setitem of a list": b"\x80\x02]K\x01K\x02s.",
    "key without a value": b"\x80\x02}(K\x01u.",
    "list as a key": b"\x80\x02}]K\x01s.",
    "dict of an odd number": b"\x80\x02(K\x01d.",
    "stack global of numbers": PROTO + b"K\x01K\x02\x93.",
    "number that is none": b"Iabc\n.",
    "long number in decimals": b"L" + b"9" * 5000 + b"L\n.",
    "negative long": b"\x80\x02\x8b\xff\xff\xff\xff.",
    "negative string": b"T\xff\xff\xff\xff.",
    "string without quotes": b"Sabc\n.",
    "bytes that are no text": b"\x80\x02X\x01\0\0\0\xff.",
    "frame in a frame": PROTO + b"\x95" + struct.pack("<Q", 12) + b"\x95" + HUGE + b"}}}.",
}
CLAIMS = {
    "bytearray8": b"\x80\x05\x96" + HUGE + b"a.",
    "binbytes8": PROTO + b"\x8e" + HUGE + b"a.",
    "binbytes": PROTO + b"B\xff\xff\xff\xffa.",
    "binunicode8": PROTO + b"\x8d" + HUGE + b"a.",
    "binunicode": PROTO + b"X\xff\xff\xff\xffa.",
    "binstring": b"T\xff\xff\xff\x7fa.",
    "long4": b"\x80\x02\x8b\xff\xff\xff\x7fa.",
    "frame": PROTO + b"\x95" + HUGE,
}


@pytest.mark.parametrize("name", [*REFUSED, *CLAIMS])
def test_what_is_ill_formed_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(UnreadableFile) as caught:
        decode((REFUSED | CLAIMS)[name])
    assert "\n" not in str(caught.value)
    assert "pickle" in str(caught.value)


def test_a_far_memo_index_allocates_nothing() -> None:
    root = decode(b"\x80\x02}r\xff\xff\xff\x7fj\xff\xff\xff\x7f\x86.").root
    assert root[0] is root[1]


def test_every_truncation_is_refused() -> None:
    data = dumped(OrderedDict(a=[Slotted(), (1, 2.5)], b=2**80), 4)
    for length in range(len(data)):
        with pytest.raises(UnreadableFile):
            decode(data[:length])


def test_every_changed_byte_is_decoded_or_refused() -> None:
    data = dumped(OrderedDict(a=[Slotted(), (1, 2.5), {"k"}], b=b"xy"), 4)
    for place in range(len(data)):
        for value in (0, 46, 82, 98, 128, 255, data[place] ^ 1):
            with contextlib.suppress(UnreadableFile):
                decode(data[:place] + bytes([value]) + data[place + 1 :])


def test_tuples_that_hold_each_other_are_not_hashed() -> None:
    laughs = b"\x80\x02K\x01" + b"2\x86" * 60 + b"0}2" + b"K\x01" + b"2\x86" * 60 + b"K\x01s."
    with pytest.raises(UnreadableFile, match="a key that is no string"):
        decode(laughs)


def test_limits_have_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LARGEST_PICKLE", 10)
    with pytest.raises(UnreadableFile, match="has 11 bytes, so describes no model"):
        decode(b"\x80\x02" + b"}0" * 4 + b".")
    monkeypatch.setattr(machine, "_MOST_OPCODES", 3)
    with pytest.raises(UnreadableFile, match="has over 3 opcodes"):
        decode(b"NNNN.")
    monkeypatch.setattr(machine, "_MOST_MADE", 2)
    monkeypatch.setattr(machine, "_MOST_OPCODES", 30)
    with pytest.raises(UnreadableFile, match="makes over 2 objects"):
        decode(b"}}}.")


BOMBS = {
    "memo": 'b"\\x80\\x04}" + b"\\x94" * 9_000_000 + b"."',
    "marks": 'b"\\x80\\x02" + b"(" * 9_000_000 + b"."',
    "dicts": 'b"\\x80\\x02(" + b"}" * 9_000_000 + b"l."',
    "nested lists": 'b"\\x80\\x02" + b"]" * 300_000 + b"a" * 299_999 + b"."',
    "nested tuples": 'b"\\x80\\x02N" + b"\\x85" * 300_000 + b"."',
    "nested objects": (
        'b"\\x80\\x02ca\\nb\\nq\\0" + b"h\\0" * 300_000 + b"N" + b"\\x85R" * 300_000 + b"."'
    ),
    # Each holds the one before it twice, so the tree has 2 ** 100_000 leaves.
    "laughs": (
        'b"\\x80\\x04]\\x94" + b"".join(b"](" + 2 * (b"j" + i.to_bytes(4, "little"))'
        ' + b"e\\x94" for i in range(100_000)) + b"."'
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_read_and_written_in_little_memory(name: str) -> None:
    code = (
        "import re, pathlib\n"
        "from tiesurgeon.errors import UnreadableFile\n"
        "from tiesurgeon.rooms.pytorch.pickles.machine import decode\n"
        "from tiesurgeon.rooms.pytorch.pickles.emit import encode\n"
        f"data = {BOMBS[name]}\n"
        "try:\n"
        "    print(len(encode(decode(data).root, 4)))\n"
        "except UnreadableFile as error:\n"
        "    print(error)\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-500:]
    assert int(result.stdout.split()[-1]) < 600_000, result.stdout  # kB; 60,000 are Python's
