"""What the tests of this room share."""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rooms.keras.hostile import MEGABYTES, peak

# Frameworks speak to themselves while they start: their warnings are not ours.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    with contextlib.suppress(ImportError):
        import tf_keras  # noqa: F401


@pytest.fixture
def little_memory() -> Iterator[None]:
    """The test may raise this process's peak by a little only."""
    if sys.platform != "linux":
        yield
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak()
    yield
    assert peak() - before < MEGABYTES
