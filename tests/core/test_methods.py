"""Propagation where the truth is known exactly: a linear Gaussian denoiser."""

import itertools

import pytest
import torch

from bayesdiff_core.methods import PRESETS, Ensemble, Records, Tangent
from bayesdiff_core.methods.tangent import (
    DAMPING,
    LOCAL,
    NU,
    NU_LEVEL,
    Plan,
    TangentRun,
    refresh_schedule,
    shifts_among,
)
from bayesdiff_core.solver_run import ReferenceSolver, SolverRun
from bayesdiff_core.solvers import SAMPLERS, flow_sigmas
from tests.core.linear import LinearDenoiser, unit_posterior

SIZE = 6


def make_process(solver, channels=2, features=None, steps=10, mask=None, batch=3):
    features = torch.ones(SIZE * SIZE, 1) if features is None else features
    denoiser = LinearDenoiser(channels, SIZE, features)
    x = torch.randn(batch, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    return SolverRun(ReferenceSolver(solver, flow_sigmas(steps)), denoiser, x, mask=mask)


def exact_variance(process, posterior):
    """sum_(row, feature) (d final / d w)^2 var(w), for a diagonal posterior."""
    variance = 1 / (posterior.precision + posterior.prior_precision)
    return sum(
        process.denoiser.response(process.trace, row, d).square() * variance[d]
        for row in range(posterior.rows)
        for d in range(posterior.features)
    )


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("channels", [1, 2])
def test_tangent_is_exact_when_the_weight_error_is_a_constant_shift(name, channels):
    process = make_process(SAMPLERS[name], channels)
    posterior = unit_posterior(channels, [3.0])
    result = Tangent(probes=channels, refreshes=100).sample(process, posterior)
    exact = exact_variance(process, posterior).expand_as(result.variance)
    torch.testing.assert_close(result.variance, exact, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_ensemble_agrees_with_the_exact_variance(name):
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(SIZE * SIZE, 3, generator=generator)
    process = make_process(SAMPLERS[name], features=features, batch=1)
    posterior = unit_posterior(2, [3.0, 1.0, 0.5])
    result = Ensemble(members=4000, chunk=500).sample(process, posterior)
    exact = exact_variance(process, posterior).expand_as(result.variance)
    # The relative standard error of a variance from 4,000 runs is 0.022; six of them.
    torch.testing.assert_close(result.variance, exact, rtol=0.14, atol=1e-5)


def test_fresh_weights_average_out_over_the_steps():
    posterior = unit_posterior(2, [3.0])
    shared = Ensemble(64).sample(make_process(SAMPLERS["ddim"]), posterior).variance.mean()
    fresh = (
        Ensemble(64, fresh_weights=True)
        .sample(make_process(SAMPLERS["ddim"]), posterior)
        .variance.mean()
    )
    assert fresh < shared


@pytest.mark.parametrize("method", [Tangent(2, 4), Ensemble(4)], ids=lambda m: m.name)
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_sample_is_what_the_solver_makes_alone(method, name):
    process = make_process(SAMPLERS[name])
    torch.manual_seed(5)
    alone = process.sample()
    torch.manual_seed(5)
    watched = method.sample(process, unit_posterior(2, [3.0])).latent
    assert torch.equal(alone, watched)


def test_ensemble_does_not_depend_on_the_chunk():
    posterior = unit_posterior(2, [3.0])
    process = make_process(SAMPLERS["ddpm"])
    torch.manual_seed(5)
    one = Ensemble(6, chunk=1).sample(process, posterior).variance
    torch.manual_seed(5)
    all_at_once = Ensemble(6, chunk=6).sample(process, posterior).variance
    torch.testing.assert_close(one, all_at_once, rtol=1e-4, atol=1e-7)


def tangents_of(process, posterior, plan):
    run = TangentRun(process, posterior, plan)
    records = Records(process, plan.refreshes)
    process.sample(records.evaluate)
    for k in plan.refreshes:
        run.refresh(k, records[k])
    return run, run.state(process.trace.evaluations).square()


def uneven_features():
    return torch.randn(SIZE * SIZE, 3, generator=torch.Generator().manual_seed(3))


def test_the_prior_gives_the_shape_and_the_draws_and_gamma_the_mean():
    process = make_process(SAMPLERS["ddim"], features=uneven_features())
    posterior = unit_posterior(2, [3.0, 1.0, 0.5])
    plan = Plan(2, 4, tuple(refresh_schedule(10, 3)))
    run, squares = tangents_of(process, posterior, plan)
    assert (run.gamma > 1).all()
    gamma = run.gamma.view(-1, 1, 1, 1)
    # ddim ends at the last denoised output, whose tangent is the last refresh's here.
    assert plan.refreshes[-1] == 9
    variance = posterior.variance(uneven_features())
    coherent = posterior.variance(uneven_features().mean(0))
    incoherent = variance * (1 - coherent / variance.mean())
    local = LOCAL * process.trace.sigmas[-1] ** 2 * incoherent.view(SIZE, SIZE)
    prior, draws = gamma * squares[:2].sum(0) + local, squares[2:].mean(0)
    means = {"dim": (1, 2, 3), "keepdim": True}
    agreed = prior * draws.mean(**means) / prior.mean(**means)
    shape = NU * agreed + 4 * draws
    mean = (NU_LEVEL * prior + 4 * draws).mean(**means) / (NU_LEVEL + 4)
    expected = shape * mean / shape.mean(**means)
    torch.testing.assert_close(run.variance(), expected, rtol=1e-4, atol=1e-9)


def test_between_refreshes_a_tangent_goes_on_damped_as_it_went():
    process = make_process(SAMPLERS["ddpm"], features=uneven_features(), steps=20)
    run, _ = tangents_of(process, unit_posterior(2, [3.0, 1.0, 0.5]), Plan(2, 1, (0, 6, 10)))
    tangents = [refresh.tangents[0] for refresh in run.history]
    outputs = []
    for j in range(20):
        i = max(i for i, refresh in enumerate(run.history) if refresh.k <= j)
        held = tangents[i]
        if i > 0:
            start, before = run.history[i].k, run.history[i - 1].k
            held = held + DAMPING * (j - start) / (start - before) * (held - tangents[i - 1])
        outputs.append(held)
    weights = process.trace.predictions[15, :15, 0].tolist()
    expected = sum(w * dd for w, dd in zip(weights, outputs[:15], strict=True))
    torch.testing.assert_close(run.state(15), expected, rtol=1e-4, atol=1e-6)


def test_a_sample_that_cannot_move_has_no_variance():
    mask = torch.ones(3, 1, SIZE, SIZE)
    mask[1] = 0
    variance = (
        Tangent(6, 3)
        .sample(make_process(SAMPLERS["ddim"], mask=mask), unit_posterior(2, [3.0]))
        .variance
    )
    # The denoiser of these tests does not know the mask, so rounding is left of its difference.
    assert variance[1].max() < 1e-12
    assert (variance[[0, 2]] > 1e-6).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_many_draws_agree_with_the_exact_variance(name):
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(SIZE * SIZE, 3, generator=generator)
    process = make_process(SAMPLERS[name], features=features, batch=1)
    posterior = unit_posterior(2, [3.0, 1.0, 0.5])
    result = Tangent(probes=6000, refreshes=100).sample(process, posterior)
    exact = exact_variance(process, posterior).expand_as(result.variance)
    # Six standard errors of a variance from 6,000 draws, sqrt(2 / 6000) each; the shifts weigh
    # 12 in 6,000.
    torch.testing.assert_close(result.variance, exact, rtol=0.12, atol=1e-5)


def test_a_budget_is_kept_and_short_runs_follow_fewer_probes():
    for evaluations in (4, 10, 15, 20, 30, 59):
        for preset in PRESETS.values():
            plan = preset.plan(evaluations, channels=3)
            probes, paid = plan.shifts + plan.draws, len(plan.refreshes) - 1
            assert probes == 1 or probes * paid <= preset.budget * evaluations + 1e-6
    assert PRESETS["balanced"].plan(30, 1).draws > PRESETS["balanced"].plan(15, 1).draws


def test_probes_go_to_a_few_shifts_first_and_then_to_draws():
    split = {(k, c): shifts_among(k, c) for k in (2, 5, 20) for c in (1, 3, 16)}
    assert split == {
        **{(2, 1): 1, (2, 3): 2, (2, 16): 2},
        **{(5, 1): 1, (5, 3): 3, (5, 16): 3},
        **{(20, 1): 1, (20, 3): 3, (20, 16): 6},
    }


def test_the_variance_does_not_depend_on_the_batch():
    posterior = unit_posterior(2, [3.0])
    whole = Tangent(5, 3).sample(make_process(SAMPLERS["ddim"]), posterior).variance
    process = make_process(SAMPLERS["ddim"])
    process.x = process.x[1:2]
    alone = Tangent(5, 3).sample(process, posterior).variance
    torch.testing.assert_close(alone, whole[1:2], rtol=1e-4, atol=1e-8)


def test_cost_is_probes_times_refreshes():
    result = Tangent(2, 4).sample(make_process(SAMPLERS["ddim"]), unit_posterior(2, [3.0]))
    assert result.cost == 2 * 4


def test_variance_scales_with_the_posterior():
    few = Tangent(2, 4).sample(make_process(SAMPLERS["ddim"]), unit_posterior(2, [0.0])).variance
    many = Tangent(2, 4).sample(make_process(SAMPLERS["ddim"]), unit_posterior(2, [3.0])).variance
    torch.testing.assert_close(few, 4 * many, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize(("evaluations", "refreshes"), [(30, 5), (10, 3), (4, 10), (1, 1)])
def test_refreshes_begin_with_the_run_and_gather_towards_its_end(evaluations, refreshes):
    schedule = refresh_schedule(evaluations, refreshes)
    assert schedule[0] == 0
    assert evaluations - 2 <= schedule[-1] <= evaluations - 1
    assert len(schedule) <= refreshes + 1
    gaps = [after - before for before, after in itertools.pairwise(schedule)]
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(gaps))


@pytest.mark.parametrize(
    ("evaluations", "schedule"),
    [(30, [0, 13, 21, 28]), (20, [0, 9, 14, 19]), (15, [0, 6, 10, 14])],
)
def test_three_refreshes_are_where_the_figures_of_the_docs_were_measured(evaluations, schedule):
    assert refresh_schedule(evaluations, 3) == schedule


def test_methods_refuse_senseless_options():
    with pytest.raises(ValueError, match="at least one probe"):
        Tangent(0, 3)
    with pytest.raises(ValueError, match="two members"):
        Ensemble(1)
