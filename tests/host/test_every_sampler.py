"""Every sampler name of the host: traced, bit-identical, and with a variance."""

from inspect import signature

import pytest
import torch

from tests.host.conftest import noise

NAMES = """
    euler euler_cfg_pp euler_ancestral euler_ancestral_cfg_pp heun heunpp2 exp_heun_2_x0
    exp_heun_2_x0_sde dpm_2 dpm_2_ancestral lms dpm_fast dpm_adaptive dpmpp_2s_ancestral
    dpmpp_2s_ancestral_cfg_pp dpmpp_sde dpmpp_sde_gpu dpmpp_2m dpmpp_2m_cfg_pp dpmpp_2m_sde
    dpmpp_2m_sde_gpu dpmpp_2m_sde_heun dpmpp_2m_sde_heun_gpu dpmpp_3m_sde dpmpp_3m_sde_gpu
    ddpm lcm ipndm ipndm_v deis res_multistep res_multistep_cfg_pp res_multistep_ancestral
    res_multistep_ancestral_cfg_pp gradient_estimation gradient_estimation_cfg_pp er_sde
    seeds_2 seeds_3 sa_solver sa_solver_pece ddim uni_pc uni_pc_bh2
""".split()  # noqa: SIM905


def test_the_list_leaves_out_none_of_the_hosts(host):
    import comfy.samplers

    assert set(comfy.samplers.KSampler.SAMPLERS) <= set(NAMES)


@pytest.mark.parametrize("kind", ["flow", "eps"])
@pytest.mark.parametrize("sampler_name", NAMES)
def test_bit_identical_with_a_finite_variance(scene, laplace, sampler_name, kind):
    model = scene.of_kind(kind)
    inputs = {"model": model, "sampler_name": sampler_name, "cfg": 2.0, "steps": 5}
    samples, uncertainty = scene.uncertain(**inputs, laplace=laplace)
    assert torch.equal(samples, scene.ksampler(**inputs))
    std = uncertainty.latent_std
    assert torch.isfinite(std).all() and (std >= 0).all() and std.max() > 0
    assert uncertainty.recording is not None


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("sampler_name", NAMES)
def test_the_shortest_runs_have_their_image_and_say_what_they_cannot_tell(
    scene, laplace, sampler_name, steps
):
    inputs = {"sampler_name": sampler_name, "cfg": 2.0, "steps": steps}
    call = scene.host.call("UncertainKSampler", **scene.inputs(**inputs), laplace=laplace)
    latent, uncertainty, _, report = call.outputs
    assert torch.equal(latent["samples"], scene.ksampler(**inputs))
    assert torch.isfinite(uncertainty.latent_std).all()
    flat = not uncertainty.signal("trajectory").map.any()
    assert flat == ("trajectory is zero" in report)
    assert flat or uncertainty.settings.evaluations > 2


class Reconstruction:
    """A sampler that runs ours and then rebuilds every state from the trace."""

    def __init__(self, scene, function, options=None, inpaint_options=None):
        import comfy.samplers

        self.module = scene.host.module
        self.sampler = comfy.samplers.KSAMPLER(self.run, options or {}, inpaint_options or {})
        self.function = function
        self.errors = []

    def run(self, model_k, x, sigmas, extra_args, callback, disable, **options):
        module = self.module("nodes.host.solver_run")
        call = module.SamplerCall(
            self.function, "one", model_k, x, sigmas, extra_args, callback, disable, options
        )
        solver = module.HostSolver(call)
        process = solver.run()
        states, outputs = [], []

        def evaluate(k, z, sigma):
            states.append(z.clone())
            outputs.append(process.denoiser.predict(z, sigma))
            return process.denoise(k, z, sigma)

        final = process.sample(evaluate)
        trace = process.trace
        assert trace.evaluations == len(states)
        for k, state in enumerate([*states, final]):
            rebuilt = trace.reconstruct(k, x, outputs, process.draws)
            self.errors.append(((rebuilt - state).abs().max() / state.abs().max()).item())
        return final


def largest_error(scene, sampler, options=None, **changes):
    """Largest relative error of a state, over a run with the sampler's own noise."""
    import comfy.sample
    import comfy.samplers

    inputs = scene.inputs(**changes)
    rebuild = Reconstruction(scene, sampler.sampler_function, options, sampler.inpaint_options)
    model = inputs["model"]
    schedule = comfy.samplers.KSampler(
        model, inputs["steps"], torch.device("cpu"), changes.get("sampler_name", "euler"),
        inputs["scheduler"], inputs["denoise"], model.model_options,
    )  # fmt: skip
    with torch.inference_mode():
        comfy.sample.sample_custom(
            model, noise(scene.latent["samples"].shape, 1), inputs["cfg"], rebuild.sampler,
            schedule.sigmas, inputs["positive"], inputs["negative"],
            0.3 * noise(scene.latent["samples"].shape, 2), seed=3, disable_pbar=True,
        )  # fmt: skip
    return max(rebuild.errors)


@pytest.mark.parametrize("sampler_name", NAMES)
@pytest.mark.parametrize(
    ("kind", "scheduler", "denoise"),
    [("flow", "beta", 0.6), ("eps", "karras", 1.0)],
)
def test_trace_rebuilds_a_real_run(scene, sampler_name, kind, scheduler, denoise):
    import comfy.samplers

    error = largest_error(
        scene, comfy.samplers.sampler_object(sampler_name), sampler_name=sampler_name,
        model=scene.of_kind(kind), steps=6, scheduler=scheduler, denoise=denoise,
    )  # fmt: skip
    assert error < 1e-4


@pytest.mark.parametrize(
    ("sampler_name", "options"),
    [
        ("euler", {"s_churn": 4.0, "s_noise": 1.01}),
        ("heun", {"s_churn": 4.0}),
        ("euler_ancestral", {"eta": 0.5, "s_noise": 0.9}),
        ("dpmpp_sde", {"eta": 0.7, "r": 0.3}),
        ("dpmpp_2m_sde", {"solver_type": "heun", "eta": 0.3}),
        ("lms", {"order": 2}),
        ("dpm_adaptive", {"order": 2, "rtol": 0.02, "eta": 0.0}),
        ("seeds_2", {"solver_type": "phi_2", "eta": 0.5, "s_noise": 1.0, "r": 0.7}),
    ],
)
def test_trace_follows_the_options_of_a_sampler(scene, sampler_name, options):
    import comfy.samplers

    sampler = comfy.samplers.ksampler(sampler_name)
    try:
        signature(sampler.sampler_function).bind_partial(**options)
    except TypeError as error:
        pytest.skip(f"{sampler_name} on {scene.host.location}: {error}")
    assert largest_error(scene, sampler, options=options, steps=6) < 1e-4


@pytest.mark.parametrize(
    "scheduler",
    ["simple", "sgm_uniform", "karras", "exponential", "ddim_uniform", "beta", "normal",
     "linear_quadratic", "kl_optimal"],
)  # fmt: skip
@pytest.mark.parametrize("sampler_name", ["euler", "dpmpp_2m", "res_multistep"])
def test_every_scheduler(scene, laplace, sampler_name, scheduler):
    inputs = {"sampler_name": sampler_name, "scheduler": scheduler, "steps": 4}
    samples, uncertainty = scene.uncertain(**inputs, laplace=laplace)
    stock = scene.ksampler(**inputs)
    assert torch.equal(samples, stock)
    assert torch.isfinite(uncertainty.latent_std).all()
