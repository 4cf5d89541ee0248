"""BayesDiffRank in the host: order, what is kept, lists of batches, errors in words."""

import pytest
import torch

CHOICE = {
    **{"signal": "artifact", "order": "best first", "keep": "all"},
    **{"count": 2, "percent": 50.0},
}


@pytest.fixture(scope="module")
def scored(host):
    """Builds an UNCERTAINTY whose images have the given scores."""
    core = host.module("bayesdiff_core.uncertainty")

    def build(*scores):
        maps = torch.tensor(scores).view(-1, 1, 1).expand(-1, 4, 4).clone()
        return core.Uncertainty({"trajectory": core.Signal(maps, "unit")})

    return build


def ranked(host, uncertainty, **changes):
    return host.call("BayesDiffRank", uncertainty=uncertainty, **{**CHOICE, **changes}).outputs


def numbered(*numbers):
    return torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 8, 8, 3)


def test_a_batch_comes_out_sorted_with_everything_that_belongs_to_it(host, scored):
    latent = {
        "samples": numbered(0, 1, 2).movedim(-1, 1),
        "noise_mask": numbered(0, 1, 2)[..., 0],
        "batch_index": [7, 8, 9],
    }
    images, latents, uncertainties, scores, report = ranked(
        host, scored(0.3, 0.1, 0.2), image=numbered(0, 1, 2), latent=latent
    )
    assert images[0][:, 0, 0, 0].tolist() == [1, 2, 0]
    assert latents[0]["samples"][:, 0, 0, 0].tolist() == [1, 2, 0]
    assert latents[0]["noise_mask"][:, 0, 0].tolist() == [1, 2, 0]
    assert latents[0]["batch_index"] == [8, 9, 7]
    assert uncertainties[0].signal("trajectory").scores.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert scores == pytest.approx([0.1, 0.2, 0.3])
    assert report.splitlines()[1] == "1. image 2: 0.1"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"keep": "count"}, [1, 2]),
        ({"keep": "percent"}, [1, 2]),
        ({"keep": "percent", "percent": 34.0}, [1, 2]),
        ({"keep": "percent", "percent": 33.0}, [1]),
        ({"keep": "count", "order": "worst first"}, [0, 2]),
        ({"keep": "count", "count": 99}, [1, 2, 0]),
    ],
)
def test_what_is_kept(host, scored, changes, expected):
    images, *_ = ranked(host, scored(0.3, 0.1, 0.2), image=numbered(0, 1, 2), **changes)
    assert images[0][:, 0, 0, 0].tolist() == expected


def test_batches_of_a_list_are_ranked_together_and_may_differ_in_size(host, scored):
    large = torch.full((1, 16, 16, 3), 5.0)
    choice = {name: [value] for name, value in CHOICE.items()}
    node = host.node_classes["BayesDiffRank"]
    assert node.INPUT_IS_LIST
    images, _, uncertainties, scores, report = node.execute(
        uncertainty=[scored(0.3, 0.1), scored(0.2)], image=[numbered(0, 1), large], **choice
    ).result
    assert [image[0, 0, 0, 0].item() for image in images] == [1, 5, 0]
    assert images[1].shape == (1, 16, 16, 3)
    assert [u.batch for u in uncertainties] == [1, 1, 1]
    assert scores == pytest.approx([0.1, 0.2, 0.3])
    assert "2. batch 2, image 1: 0.2" in report


def test_an_output_without_input_blocks_with_a_sentence(host, scored):
    images, latents, *_ = ranked(host, scored(0.3), image=numbered(0))
    assert len(images) == 1
    assert "connect the node's input" in latents[0].message


def test_images_of_another_run_are_refused(host, scored):
    with pytest.raises(ValueError, match="images of the same run"):
        ranked(host, scored(0.3, 0.1), image=numbered(0, 1, 2))


@pytest.mark.parametrize("known", [[], [7], [7, 8], [7, 8, 9, 10]])
def test_images_beyond_a_short_batch_index_are_counted_on(host, scored, known):
    latent = {"samples": numbered(0, 1, 2).movedim(-1, 1), "batch_index": known}
    _, latents, *_ = ranked(host, scored(0.3, 0.1, 0.2), latent=latent)
    whole = [*known, *range(3)[len(known) :]]
    assert latents[0]["batch_index"] == [whole[i] for i in (1, 2, 0)]
