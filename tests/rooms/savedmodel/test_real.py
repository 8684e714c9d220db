"""SavedModels that other people trained and published, opened as data: nothing of them is run."""

from pathlib import Path

import pytest

from tests.test_real import Fetch, fetch
from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.inspection import inspect
from tiesurgeon.model import Permissions
from tiesurgeon.rooms.savedmodel.model import open_model

__all__ = ["fetch"]
pytestmark = pytest.mark.real

MEMBERS = (
    "saved_model.pb",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
)


def folder(fetch: Fetch, package: str, place: str) -> Path:
    for member in MEMBERS[1:]:
        fetch(package, f"{place}/{member}")
    return fetch(package, f"{place}/{MEMBERS[0]}").parent


def test_quickspacer_is_subclassed_models_of_tensorflow_2_3(fetch: Fetch) -> None:
    for number, parameters in ((1, 346_241), (2, 1_256_321), (3, 2_446_337)):
        place = f"quickspacer/resources/default_saved_model/{number}"
        found = inspect(folder(fetch, "quickspacer==1.0.4", place))
        assert (found.format, found.writer) == ("savedmodel", "keras 2.4.0")
        assert found.unique_parameters == found.total_parameters == parameters
        assert found.graph.layers[0].op == "Embedding"
        assert any(f"ConvSpacer{number} is a subclassed model" in word for word in found.warnings)
        assert any("serving_default: (texts: string[?])" in word for word in found.warnings)


def test_basic_pitch_is_a_model_of_keras_2_4(fetch: Fetch) -> None:
    place = "basic_pitch/saved_models/icassp_2022/nmp"
    found = inspect(folder(fetch, "basic-pitch==0.4.0", place))
    assert found.writer == "keras 2.4.0"
    assert found.unique_parameters == 16_864
    assert [layer.op for layer in found.graph.layers].count("Conv2D") == 6
    assert found.graph.layer("concat").op == "Concatenate"
    assert not found.ties
    assert not found.candidates


def test_a_subclassed_model_is_not_changed(fetch: Fetch) -> None:
    path = folder(fetch, "quickspacer==1.0.4", "quickspacer/resources/default_saved_model/1")
    with pytest.raises(UnsupportedFormat, match="ConvSpacer1 is a subclassed model"):
        open_model(path, "savedmodel", Permissions()).refuse_unchangeable()
