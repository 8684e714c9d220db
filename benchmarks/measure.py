"""Time and memory of fresh processes, compared in pairs."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

SCRIPT = Path(sys.executable).with_name("tiesurgeon")
TIESURGEON = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "tiesurgeon"]
PYTHON = [sys.executable, "-c"]
# ru_maxrss is in kilobytes on Linux and in bytes on macOS.
PEAK_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Cost:
    """What one process, or the median of several, took: seconds, seconds, megabytes."""

    wall: float
    cpu: float
    peak: float

    def __str__(self) -> str:
        return f"{self.wall:6.2f} s   {self.cpu:6.2f} s CPU   {self.peak:5.0f} MB"


def cost(command: Sequence[str]) -> Cost:
    """Runs a command to its end; its output is shown only if it fails.

    The peak counts this process too, up to the start of the other: so nothing large is
    imported here.
    """
    # Installed packages are compiled once; so is a checkout, unless this is set.
    cached = {key: text for key, text in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    started = perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=cached
    )
    assert process.stderr is not None
    errors = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    wall = perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)}\nfailed: {errors}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * PEAK_UNIT / 1e6)


def compare(commands: Sequence[Sequence[str]], rounds: int) -> list[Cost]:
    """The median cost of each command; they take turns, so that a busy machine hits all alike."""
    for command in commands:  # once before it counts: caches, compiled bytecode
        cost(command)
    taken: list[list[Cost]] = [[] for _ in commands]
    for _ in range(rounds):
        for costs, command in zip(taken, commands, strict=True):
            costs.append(cost(command))
    return [
        Cost(
            statistics.median(one.wall for one in costs),
            statistics.median(one.cpu for one in costs),
            statistics.median(one.peak for one in costs),
        )
        for costs in taken
    ]
