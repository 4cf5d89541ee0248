"""Both structures of a precision against dense algebra."""

import pytest
import torch

from bayesdiff_core.precision import STRUCTURES, choose_structure, structured

LAM = 0.3


@pytest.fixture(params=STRUCTURES)
def precision(request):
    phi = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    result = STRUCTURES[request.param].zeros(5)
    result.add(phi[:25])
    result.add(phi[25:])
    dense = phi.double().T @ phi.double()
    return result, dense if request.param == "full" else dense.diag().diag()


def test_sums_and_eigenvalues_are_those_of_the_dense_matrix(precision):
    kept, dense = precision
    stored = kept.values if kept.values.ndim == 2 else kept.values.diag()
    torch.testing.assert_close(stored, dense, rtol=1e-5, atol=1e-5)
    eigenvalues = kept.eigenvalues().sort().values
    torch.testing.assert_close(eigenvalues, torch.linalg.eigvalsh(dense), rtol=1e-5, atol=1e-5)


def test_whitening_and_colouring_are_both_halves_of_the_covariance(precision):
    kept, dense = precision
    factor, basis = kept.factor(LAM), torch.eye(5)
    covariance = torch.linalg.inv(dense + LAM * torch.eye(5).double()).float()
    whitened, coloured = kept.whiten(basis, factor), kept.color(basis, factor)
    torch.testing.assert_close(whitened @ whitened.T, covariance, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(coloured.T @ coloured, covariance, rtol=1e-4, atol=1e-6)


def test_the_shape_says_the_structure(precision):
    kept, _ = precision
    assert type(structured(kept.values)) is type(kept)


def test_only_wide_layers_drop_the_correlations():
    assert [choose_structure(features) for features in (6000, 6001)] == ["full", "diag"]
