"""The picture of brute force beside the methods."""

import cv2
import pytest
import torch

import benchmarks.cache
import benchmarks.models
from benchmarks.fidelity.pictures import METHODS, columns, draw
from benchmarks.fidelity.truth import Cell
from benchmarks.models import Setting


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """A posterior of fewer images, and truths in a folder of their own."""
    monkeypatch.setattr(benchmarks.cache, "CACHE", tmp_path)
    monkeypatch.setattr(benchmarks.models, "FIT_IMAGES", 64)
    benchmarks.models.load_benchmark_model.cache_clear()
    yield
    benchmarks.models.load_benchmark_model.cache_clear()


@pytest.mark.usefixtures("quick")
def test_every_method_is_drawn_beside_brute_force(tmp_path):
    setting = Setting("digits", "ddim", 4, 1.0, 2)
    found = columns(Cell((setting,)), members=8)
    assert list(found) == ["image", "brute force", *METHODS]
    # Not to the bit: brute force runs the network in batches of its own.
    expected = ((setting.process().sample().clamp(-1, 1) + 1) / 2).expand(-1, 3, -1, -1)
    torch.testing.assert_close(found.pop("image"), expected.movedim(1, -1), rtol=0, atol=1e-3)
    for name, values in found.items():
        assert values.shape == (2, *setting.process().x.shape[-2:]), name
        assert (values >= 0).all() and values.max() > 0, name
    path = tmp_path / "pictures" / "maps.png"
    draw({"digits": {"image": expected.movedim(1, -1), **found}}, path)
    picture = cv2.imread(str(path))
    assert picture.shape[1] > picture.shape[0] > 200
    assert picture.std() > 20
