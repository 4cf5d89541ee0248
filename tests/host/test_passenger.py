"""Uncertainty is a passenger: whatever it meets, the image is the one that KSampler makes."""

from contextlib import contextmanager

import pytest
import torch

from tests.host.test_traces_left import fingerprint_of_the_host

STEPS = 4


@pytest.fixture
def untouched(scene):
    before = fingerprint_of_the_host(scene.model)
    yield
    assert fingerprint_of_the_host(scene.model) == before


def disturb(monkeypatch, scene, from_call, act):
    """Let `act` take the place of the network from its n-th call on; returns the calls."""
    network = scene.model.model.diffusion_model.network
    original, calls = network.forward, []

    def forward(*args, **kwargs):
        calls.append(1)
        if len(calls) >= from_call:
            return act(original(*args, **kwargs))
        return original(*args, **kwargs)

    monkeypatch.setattr(network, "forward", forward)
    return calls


def raising(error):
    def act(_output):
        raise error

    return act


def interrupt(_output):
    import comfy.model_management

    comfy.model_management.interrupt_current_processing()
    comfy.model_management.throw_exception_if_processing_interrupted()


ACTS = {
    "error": raising(RuntimeError("the network fails")),
    "memory": raising(torch.cuda.OutOfMemoryError("out of memory")),
    "nan": lambda output: output * float("nan"),
    "cancel": interrupt,
}


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("after", range(0, 12, 2))
def test_a_failure_after_the_image_costs_a_signal_and_a_sentence(
    scene, laplace, monkeypatch, act, after
):
    inputs = {"steps": STEPS, "preset": "custom", "probes": 3, "refreshes": 4}
    stock = scene.ksampler(steps=STEPS)
    scene.uncertain(**inputs, laplace=laplace)
    with monkeypatch.context() as patch:
        calls = disturb(patch, scene, STEPS + 1 + after, ACTS[act])
        call = scene.host.call("UncertainKSampler", **scene.inputs(**inputs), laplace=laplace)
    latent, uncertainty, scores, report = call.outputs
    assert torch.equal(latent["samples"], stock)
    assert len(scores) == len(stock)
    assert uncertainty.recording is not None
    failed = len(calls) >= STEPS + 1 + after
    assert bool(uncertainty.settings.failures) == failed
    assert all(sentence in report for sentence in uncertainty.settings.failures)
    assert all(torch.isfinite(s.map).all() for s in uncertainty.signals.values())
    if failed:
        assert not {"contrast", "posterior"} <= set(uncertainty.signals)
    if after >= 6:
        assert "contrast" in uncertainty.signals


def noisy(output):
    return output + 1e-3 * torch.randn_like(output)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("method", ["tangent", "ensemble"])
@pytest.mark.parametrize("sampler_name", ["euler", "dpmpp_2m_sde", "dpm_adaptive", "heun"])
def test_a_model_that_draws_from_the_global_generator(
    scene, laplace, monkeypatch, method, sampler_name
):
    inputs = {"sampler_name": sampler_name, "steps": STEPS}
    disturb(monkeypatch, scene, 1, noisy)
    torch.manual_seed(3)
    stock, state = scene.ksampler(**inputs), torch.get_rng_state()
    torch.manual_seed(3)
    ours, uncertainty = scene.uncertain(**inputs, laplace=laplace, method=method, members=3)
    assert torch.equal(ours, stock)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.isfinite(uncertainty.latent_std).all()


def with_step_cache(model, every):
    """The model with a cache that answers every n-th call with its last residual, by run."""
    import comfy.patcher_extension

    wrappers = comfy.patcher_extension.WrappersMP
    cached = model.clone()
    state = {}

    def outer(executor, *args, **kwargs):
        state.clear()
        return executor(*args, **kwargs)

    def apply(executor, x, t, *args, **kwargs):
        state["calls"] = state.get("calls", 0) + 1
        last = state.get("residual")
        if state["calls"] % every == 0 and last is not None and last.shape == x.shape:
            return x + last
        output = executor(x, t, *args, **kwargs)
        state["residual"] = output - x
        return output

    cached.add_wrapper_with_key(wrappers.OUTER_SAMPLE, "cache", outer)
    cached.add_wrapper_with_key(wrappers.APPLY_MODEL, "cache", apply)
    return cached


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("every", [2, 3])
@pytest.mark.parametrize("sampler_name", ["euler", "dpmpp_2m", "heun"])
def test_a_step_cache_that_starts_anew_with_every_run(scene, laplace, sampler_name, every):
    cached = with_step_cache(scene.model, every)
    inputs = {"model": cached, "sampler_name": sampler_name, "steps": 8}
    stock = scene.ksampler(**inputs)
    assert not torch.equal(stock, scene.ksampler(**{**inputs, "model": scene.model}))
    ours, uncertainty = scene.uncertain(**inputs, laplace=laplace)
    assert torch.equal(ours, stock)
    assert "trajectory" in uncertainty.signals


@pytest.mark.usefixtures("untouched")
def test_guidance_with_momentum_is_followed_from_where_it_was(scene, laplace):
    (model,) = scene.host.call(
        "APG", model=scene.model, eta=0.7, norm_threshold=3.0, momentum=-0.3
    ).outputs
    inputs = {"model": model, "steps": 6, "cfg": 3.0}
    stock = scene.ksampler(**inputs)
    ours, uncertainty = scene.uncertain(**inputs, laplace=laplace)
    assert torch.equal(ours, stock)
    assert torch.isfinite(uncertainty.latent_std).all() and uncertainty.latent_std.max() > 0


def test_sigmas_without_a_step_give_what_the_host_gives(scene):
    call = scene.host.call
    (noise,) = call("RandomNoise", noise_seed=0).outputs
    (guider,) = call("BasicGuider", model=scene.model, conditioning=scene.positive).outputs
    (sampler,) = call("KSamplerSelect", sampler_name="euler").outputs
    for sigmas in (torch.tensor([0.8]), torch.tensor([])):
        inputs = {
            "noise": noise, "guider": guider, "sampler": sampler, "sigmas": sigmas,
            "latent_image": {"samples": scene.latent["samples"] + 0.3},
        }  # fmt: skip
        stock, _ = call("SamplerCustomAdvanced", **inputs).outputs
        ours, _, uncertainty, _, report = call("BayesDiffUncertainSamplerCustom", **inputs).outputs
        assert torch.equal(ours["samples"], stock["samples"])
        assert not uncertainty.signal("trajectory").map.any()
        assert "trajectory is zero" in report


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("with_laplace", [False, True])
def test_an_image_that_diverged_comes_as_the_host_makes_it(
    scene, laplace, monkeypatch, with_laplace
):
    posterior = laplace if with_laplace else None
    scene.uncertain(steps=STEPS, laplace=laplace)
    with monkeypatch.context() as patch:
        disturb(patch, scene, 1, ACTS["nan"])
        stock = scene.ksampler(steps=STEPS)
        call = scene.host.call("UncertainKSampler", **scene.inputs(steps=STEPS), laplace=posterior)
    latent, uncertainty, scores, report = call.outputs
    assert stock.isnan().any()
    assert torch.equal(latent["samples"].isnan(), stock.isnan())
    assert "trajectory could not be computed" in report
    assert all(torch.isfinite(torch.tensor(score)) for score in scores)


@pytest.mark.usefixtures("untouched")
def test_without_any_prompt_there_is_an_image_and_no_posterior(scene, laplace):
    inputs = {"steps": STEPS, "positive": [], "negative": []}
    ours, uncertainty = scene.uncertain(**inputs, laplace=laplace)
    assert torch.equal(ours, scene.ksampler(**inputs))
    assert "posterior" not in uncertainty.signals
    assert any("at least one conditioning" in text for text in uncertainty.settings.failures)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("sampler_name", ["euler", "dpm_adaptive"])
def test_what_guidance_kept_is_recalled_with_the_evaluation(
    scene, laplace, monkeypatch, sampler_name
):
    """Momentum moves on during the run; a recalled prediction is the one of its own step."""
    (model,) = scene.host.call(
        "APG", model=scene.model, eta=0.7, norm_threshold=3.0, momentum=-0.6
    ).outputs
    denoiser = scene.host.module("nodes.host.denoiser").HostDenoiser
    record, recall, recorded, differences = denoiser.record, denoiser.recall, {}, []

    def noted(self, z, sigma, whole):
        denoised, content = record(self, z, sigma, whole)
        recorded[id(content)] = denoised
        return denoised, content

    @contextmanager
    def compared(self, content):
        with recall(self, content) as evaluation:
            again = evaluation.predictions[0]
            differences.append((again - recorded[id(content)]).abs().max().item())
            yield evaluation

    monkeypatch.setattr(denoiser, "record", noted)
    monkeypatch.setattr(denoiser, "recall", compared)
    inputs = {"model": model, "sampler_name": sampler_name, "steps": 8, "cfg": 4.0}
    _, uncertainty = scene.uncertain(**inputs, laplace=laplace)
    assert not uncertainty.settings.failures
    assert len(differences) > 2 and max(differences) < 1e-5


@pytest.mark.usefixtures("untouched")
def test_an_adaptive_sampler_needs_no_rehearsal(scene, monkeypatch):
    """Its steps are known after the run: the model is called as often as by the host."""
    inputs = {"sampler_name": "dpm_adaptive", "steps": 5, "cfg": 1.0}
    calls = disturb(monkeypatch, scene, 1, lambda output: output)
    stock, own = scene.ksampler(**inputs), len(calls)
    ours, uncertainty = scene.uncertain(**inputs, contrast=False)
    assert torch.equal(ours, stock)
    assert len(calls) == 2 * own
    assert uncertainty.settings.evaluations == own == len(uncertainty.recording.states)
    assert uncertainty.signal("trajectory").map.max() > 0


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("method", ["tangent", "ensemble"])
def test_a_run_of_unknown_length_is_told_the_same_afterwards(scene, laplace, monkeypatch, method):
    """A sampler whose steps are known, taken for one that is adaptive, has the same maps."""
    solver = scene.host.module("nodes.host.solver_run").HostSolver
    inputs = {"sampler_name": "heun", "steps": 6, "cfg": 3.0, "laplace": laplace}
    inputs |= {"method": method, "members": 2}
    own, known = scene.uncertain(**inputs)
    always = property(lambda _self: True, lambda *_args: None)
    monkeypatch.setattr(solver, "adaptive", always, raising=False)
    found, later = scene.uncertain(**inputs)
    assert torch.equal(found, own)
    assert torch.equal(later.recording.states, known.recording.states)
    for name, signal in known.signals.items():
        torch.testing.assert_close(later.signals[name].map, signal.map, rtol=1e-4, atol=1e-6)
    extra = later.settings.extra_evaluations - known.settings.extra_evaluations
    assert extra == (3 if method == "tangent" else 0)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("observer", ["recording.Recorder", "signals.TrajectoryVariance"])
def test_an_observer_that_fails_costs_what_it_observes(scene, laplace, monkeypatch, observer):
    module, name = observer.split(".")
    watched = getattr(scene.host.module(f"bayesdiff_core.{module}"), name)

    def fails(*_args):
        raise RuntimeError("no room for it")

    monkeypatch.setattr(watched, "observe", fails)
    call = scene.host.call("UncertainKSampler", **scene.inputs(steps=STEPS), laplace=laplace)
    latent, uncertainty, _, report = call.outputs
    assert torch.equal(latent["samples"], scene.ksampler(steps=STEPS))
    assert "no room for it" in report
    assert (uncertainty.recording is None) == (name == "Recorder")
    assert "posterior" in uncertainty.signals


@pytest.mark.usefixtures("untouched")
def test_a_method_that_takes_part_and_fails_leaves_the_stock_image(scene, laplace, monkeypatch):
    recursion = scene.host.module("bayesdiff_core.methods.bayesdiff").Recursion

    def fails(*_args):
        raise RuntimeError("the recursion fails")

    monkeypatch.setattr(recursion, "_advance", fails)
    ours, uncertainty = scene.uncertain(steps=STEPS, laplace=laplace, method="bayesdiff")
    assert torch.equal(ours, scene.ksampler(steps=STEPS))
    assert "posterior" not in uncertainty.signals and "contrast" in uncertainty.signals
    assert uncertainty.settings.failures == (
        "posterior could not be computed: the recursion fails",
    )


@pytest.mark.usefixtures("untouched")
def test_a_second_run_that_cannot_even_begin_costs_no_image(scene, laplace, monkeypatch):
    call = scene.host.module("nodes.host.solver_run").SamplerCall

    def fails(_self):
        raise RuntimeError("the host cannot set it up")

    monkeypatch.setattr(call, "serve_copies", fails)
    ours, uncertainty = scene.uncertain(steps=STEPS, laplace=laplace)
    assert torch.equal(ours, scene.ksampler(steps=STEPS))
    assert set(uncertainty.signals) == {"trajectory"}
    assert any("cannot set it up" in sentence for sentence in uncertainty.settings.failures)
