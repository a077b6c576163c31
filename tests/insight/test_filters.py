"""Principal components of filters against an eigendecomposition of their covariance."""

import numpy as np
import pytest

from vit_jax.insight.filters import filter_components


def test_components_are_eigenvectors_of_the_filters_covariance_the_largest_first():
    kernel = np.random.default_rng(0).standard_normal((2, 3, 3, 40)) * np.arange(1, 19).reshape(2, 3, 3, 1)
    components, variance = filter_components(kernel, 5)
    assert components.shape == (5, 2, 3, 3)
    covariance = np.cov(kernel.reshape(18, 40))
    values, vectors = np.linalg.eigh(covariance)
    np.testing.assert_allclose(variance, values[::-1][:5] / values.sum(), rtol=1e-10)
    for found, expected in zip(components.reshape(5, 18), vectors.T[::-1], strict=False):
        assert abs(found @ expected) == pytest.approx(1)
        assert found[np.abs(found).argmax()] > 0


def test_a_patch_with_fewer_pixels_than_components_gives_as_many_as_it_has():
    components, variance = filter_components(np.random.default_rng(0).standard_normal((1, 2, 3, 50)), 28)
    assert components.shape == (6, 1, 2, 3)
    assert variance.sum() == pytest.approx(1)


def test_equal_filters_have_no_variance():
    assert filter_components(np.ones((2, 2, 1, 4)))[1].tolist() == [0, 0, 0, 0]
