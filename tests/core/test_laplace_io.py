"""A posterior survives the way to disk, and nothing else is taken for one."""

import pytest
import torch
from safetensors.torch import save_file

from bayesdiff_core.laplace import GaussNewton
from bayesdiff_core.laplace_io import load_posterior, save_posterior
from bayesdiff_core.last_layer import fingerprint


@pytest.fixture(params=["full", "diag"])
def posterior(request):
    generator = torch.Generator().manual_seed(0)
    sums = GaussNewton.zeros(5, request.param)
    sums.update([torch.randn(40, 5, generator=generator)], torch.randn(40, generator=generator))
    weights = torch.randn(2, 5, generator=generator)
    return sums.posterior(weights, fingerprint=fingerprint("out.2", weights))


def test_round_trip_is_exact(posterior, tmp_path):
    path = tmp_path / "folder" / "posterior.safetensors"
    save_posterior(posterior, path)
    loaded = load_posterior(path)
    assert torch.equal(loaded.precision, posterior.precision)
    assert loaded.fingerprint == posterior.fingerprint
    assert loaded.prior_precision == posterior.prior_precision
    phi = torch.randn(7, 5)
    assert torch.equal(loaded.variance(phi), posterior.variance(phi))
    assert not list(tmp_path.glob("**/*.part"))


def test_other_files_are_refused(tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({"precision": torch.zeros(2)}, other)
    with pytest.raises(ValueError, match="not a Laplace posterior"):
        load_posterior(other)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not safetensors at all")
    with pytest.raises(ValueError, match="cannot be read"):
        load_posterior(broken)
    newer = tmp_path / "newer.safetensors"
    save_file(
        {"precision": torch.zeros(2)}, newer, {"format": "bayesdiff.laplace", "version": "9"}
    )
    with pytest.raises(ValueError, match="version 9"):
        load_posterior(newer)
