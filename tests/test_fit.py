"""One matrix for two that differ."""

import ml_dtypes
import numpy as np
import pytest

from tiesurgeon.errors import ShapeMismatch
from tiesurgeon.fit import METHODS, fit
from tiesurgeon.graph import Array

random = np.random.default_rng(7)
SOURCE = random.normal(size=(90_001, 3)).astype(np.float32)  # several blocks of rows
TARGET = random.normal(size=SOURCE.shape).astype(np.float32)


def test_each_method_gives_what_it_says_on_every_row() -> None:
    expected = {
        "keep-source": SOURCE,
        "keep-target": TARGET,
        "mean": ((SOURCE.astype(float) + TARGET) / 2).astype(np.float32),
    }
    assert set(expected) == set(METHODS)
    for method, array in expected.items():
        found = fit(SOURCE, TARGET, method)
        assert found.tobytes() == array.tobytes()


@pytest.mark.parametrize("method", METHODS)
def test_the_result_is_new_and_its_inputs_are_as_they_were(method: str) -> None:
    source, target = SOURCE.copy(), TARGET.copy()
    found = fit(source, target, method)
    found += 1
    assert np.array_equal(source, SOURCE)
    assert np.array_equal(target, TARGET)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("method", METHODS)
def test_the_result_has_the_sources_dtype_and_order(method: str, dtype: type) -> None:
    source: Array = SOURCE[:11].astype(dtype)
    found = fit(source, np.ascontiguousarray(TARGET[:11].T).T, method)
    assert found.dtype == source.dtype
    assert found.flags.c_contiguous


def test_the_mean_of_large_half_precision_numbers_is_finite() -> None:
    large = np.full((11, 3), 60_000, np.float16)
    assert np.array_equal(fit(large, large, "mean"), large)


def test_convolution_kernels_keep_their_shape() -> None:
    kernel = random.normal(size=(3, 3, 2, 5)).astype(np.float32)
    assert fit(kernel, kernel + 2, "mean") == pytest.approx(kernel + 1, abs=1e-5)


def test_a_vocabulary_padded_on_one_side_is_refused_with_both_shapes() -> None:
    with pytest.raises(ShapeMismatch, match=r"\(11, 3\).*\(16, 3\).*target has 5 more rows"):
        fit(SOURCE[:11], TARGET[:16], "mean")
    with pytest.raises(ShapeMismatch, match="source has 5 more rows"):
        fit(SOURCE[:16], TARGET[:11], "keep-source")


def test_other_shapes_are_refused_with_both_shapes() -> None:
    with pytest.raises(ShapeMismatch, match=r"\(11, 3\).*\(3, 11\)"):
        fit(SOURCE[:11], TARGET[:11].T, "mean")


def test_an_unknown_method_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="keep-source, keep-target, mean"):
        fit(SOURCE, TARGET, "median")
