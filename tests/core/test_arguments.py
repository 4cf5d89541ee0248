"""Wrong arguments of runs, masks and posteriors are met at the door, in a sentence."""

import pytest
import torch

from bayesdiff_core.laplace import LaplacePosterior
from bayesdiff_core.recording import Recording
from bayesdiff_core.resample.masked_run import MaskedRun, RenoisedRun
from bayesdiff_core.solver_run import ReferenceSolver, SolverRun
from bayesdiff_core.solvers import ddim, flow_sigmas
from bayesdiff_core.tiling import tile
from tests.core.linear import LinearDenoiser

LATENT = torch.zeros(2, 3, 4, 4)
MASK = torch.ones(2, 1, 4, 4)
RECORDING = Recording(
    torch.zeros(5, 2, 3, 4, 4), torch.zeros(5, 2, 3, 4, 4), torch.linspace(1, 0.2, 5),
    torch.linspace(1, 0, 6), LATENT,
)  # fmt: skip


def renoise(_sigma, _noise, clean):
    return clean


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda: tile(LATENT, 0), "number of copies"),
        (lambda: flow_sigmas(0), "number of steps"),
        (lambda: flow_sigmas(4, shift=0.0), "shift"),
        (lambda: MaskedRun(RECORDING, MASK[:1], 0.5), "mask must have the shape"),
        (lambda: MaskedRun(RECORDING, torch.ones(2, 4, 4), 0.5), "mask must have the shape"),
        (lambda: MaskedRun(RECORDING, MASK, 0.5, copies=0), "number of copies"),
        (lambda: MaskedRun(RECORDING, MASK * 0, 0.5), "mask is empty"),
        (lambda: MaskedRun(RECORDING, MASK, 1.5).sigmas, "denoise must lie"),
        (lambda: RenoisedRun(LATENT, MASK[..., :2], renoise, LATENT), "mask must have the shape"),
        (lambda: RenoisedRun(LATENT, MASK, renoise, LATENT[:1]), "noise must have the shape"),
        (
            lambda: LaplacePosterior(torch.ones(3), 1.0, 1.0, 2, 5).draw(
                -1, torch.Generator().manual_seed(0)
            ),
            "number of draws",
        ),
        (
            lambda: SolverRun(
                ReferenceSolver(ddim, torch.tensor([1.0, float("nan")])),
                LinearDenoiser(3, 4, torch.ones(16, 1)),
                LATENT,
            ),
            "schedule must be finite",
        ),
    ],
)
def test_a_wrong_argument_gets_a_sentence(work, words):
    with pytest.raises(ValueError, match=words):
        work()
