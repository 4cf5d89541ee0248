"""The methods behind one input, in the host."""

import pytest
import torch

from tests.host.conftest import noise


@pytest.mark.parametrize("sampler_name", ["euler", "dpmpp_2m_sde", "euler_ancestral_cfg_pp"])
def test_ensemble_is_the_spread_of_runs_with_other_weights(scene, laplace, sampler_name):
    """Against weights that are really moved, and the host's own KSampler."""
    inputs = {"sampler_name": sampler_name, "steps": 4}
    stock = scene.ksampler(**inputs)
    samples, uncertainty = scene.uncertain(**inputs, laplace=laplace, method="ensemble", members=5)
    assert torch.equal(samples, stock)
    layer = scene.model.model.diffusion_model.network.out[2]
    weight, bias = layer.weight.clone(), layer.bias.clone()
    generator, members = torch.Generator().manual_seed(0), []
    # The method draws four at a time.
    for delta in [*laplace.draw(4, generator), *laplace.draw(1, generator)]:
        layer.weight.copy_(weight + delta[:, :-1].view_as(weight))
        layer.bias.copy_(bias + delta[:, -1])
        members.append(scene.ksampler(**inputs))
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    truth = torch.stack(members).std(0)
    error = (uncertainty.latent_std - truth).abs().max()
    assert error < 1e-3 * truth.max()
    assert uncertainty.settings.extra_evaluations == 5 * uncertainty.settings.evaluations


def test_published_recursion_runs_where_it_is_defined(scene, laplace):
    result = scene.host.call(
        "UncertainKSampler", **scene.inputs(laplace=laplace, method="bayesdiff", skip=2)
    )
    _, uncertainty, _, report = result.outputs
    assert torch.isfinite(uncertainty.latent_std).all()
    assert "of the recursion's variances came out negative" in report
    with pytest.raises(ValueError, match="not 'dpmpp_2m'.*euler"):
        scene.uncertain(laplace=laplace, method="bayesdiff", sampler_name="dpmpp_2m")


def test_custom_preset_takes_its_numbers(scene, laplace):
    _, uncertainty = scene.uncertain(laplace=laplace, preset="custom", probes=1, refreshes=3)
    assert uncertainty.settings.method == "tangent"
    # The first refresh costs nothing: there is no tangent yet.
    assert uncertainty.settings.extra_evaluations == 3
    assert uncertainty.settings.notes["shifts"] == 1


def test_std_follows_the_scale_of_the_latent_format(scene, laplace, monkeypatch):
    """Latents leave the model affinely, channel by channel, and so does their std."""
    _, plain = scene.uncertain(laplace=laplace)
    format_class = type(scene.model.model.latent_format)
    scale = torch.tensor([2.0, 5.0]).view(1, 2, 1, 1)
    monkeypatch.setattr(format_class, "process_out", lambda self, x: x * scale + 3.0)
    samples, scaled = scene.uncertain(laplace=laplace)
    torch.testing.assert_close(scaled.latent_std, plain.latent_std * scale, rtol=1e-4, atol=1e-5)
    assert torch.equal(samples, scene.ksampler())


def test_image_to_image_lies_nearer_and_surer(scene, laplace):
    """A shorter run has less to be unsure of."""
    start = {"samples": 0.5 * noise(scene.latent["samples"].shape, 1)}
    stds = [
        scene.uncertain(laplace=laplace, latent_image=start, denoise=denoise)[1].latent_std.mean()
        for denoise in (0.2, 0.6, 1.0)
    ]
    assert stds[0] < stds[1] < stds[2]


@pytest.mark.parametrize("method", ["tangent", "ensemble", "bayesdiff"])
@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_host_and_core_agree_on_the_same_network(scene, laplace, method, cfg):
    """The core without a host on one side, KSampler with all its machinery on the other."""
    core = scene.host.module
    flow, samplers = core("bayesdiff_core.flow_matching"), core("bayesdiff_core.solvers")
    methods, process = core("bayesdiff_core.methods"), core("bayesdiff_core.solver_run")
    labels = (scene.positive[0][0][..., 0] - 1).long()
    network = scene.model.model.diffusion_model.network
    model = flow.FlowModel(network, tuple(scene.latent["samples"].shape[1:]), labels)
    null = torch.full_like(labels, network.config.null_label)
    denoiser = flow.FlowDenoiser(model, labels, null, cfg)
    solver = process.ReferenceSolver(samplers.ddim, samplers.flow_sigmas(5))
    run = process.SolverRun(solver, denoiser, noise(scene.latent["samples"].shape, 5))
    chosen = {
        "tangent": methods.PRESETS["balanced"],
        "ensemble": methods.Ensemble(6),
        "bayesdiff": methods.BayesDiff(),
    }[method]
    truth = chosen.sample(run, laplace)
    samples, uncertainty = scene.uncertain(
        steps=5, cfg=cfg, laplace=laplace, method=method, members=6
    )
    torch.testing.assert_close(samples, truth.latent, rtol=1e-3, atol=1e-4)
    std = truth.variance.sqrt()
    assert (uncertainty.latent_std - std).abs().max() < 5e-3 * std.max()
