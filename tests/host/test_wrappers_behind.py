"""What stands between the network and its prediction: followed, or named; never silently wrong."""

import re
from dataclasses import replace

import pytest
import torch

from tests.host.conftest import noise
from tests.host.test_features import Probe, cfg_guider
from tests.host.tiny import ARCHITECTURES, tiny_scene


def mirrored(prediction):
    return prediction.flip(-1)


def rolled(prediction):
    return prediction.roll(1, -2)


def doubled(prediction):
    return 2 * prediction


def negated(prediction):
    return -prediction


def clamped(prediction):
    return prediction.clamp(-0.5, 0.5)


def normalised(prediction):
    return prediction / prediction.std()


def noisy(prediction):
    return prediction + 1e-3 * torch.randn_like(prediction)


def rounded(prediction):
    return prediction.bfloat16().float()


def shifted(prediction):
    return prediction + noise(prediction.shape[1:], 2)


NAMED = {
    mirrored: "moves or mirrors it",
    rolled: "moves or mirrors it",
    doubled: "multiplies it by 2",
    negated: "multiplies it by -1",
    clamped: "changes its values",
    normalised: "changes its values|multiplies it by 0.",
}

HARMLESS = [noisy, rounded, shifted]


def function_wrapped(model, around):
    """The model with `around(call, x, t)` as its model function."""
    wrapped = model.clone()

    def wrapper(apply_model, args):
        def call(rows):
            return apply_model(args["input"][rows], args["timestep"][rows], **of(args["c"], rows))

        return around(call, len(args["input"]))

    wrapped.set_model_unet_function_wrapper(wrapper)
    return wrapped


def apply_wrapped(model, around):
    """The same as a wrapper of APPLY_MODEL."""
    import comfy.patcher_extension

    wrapped = model.clone()

    def wrapper(executor, x, t, c_concat=None, c_crossattn=None, *args, **kwargs):
        def call(rows):
            told = of(kwargs, rows)
            context = None if c_crossattn is None else c_crossattn[rows]
            return executor(x[rows], t[rows], c_concat, context, *args, **told)

        return around(call, len(x))

    wrapped.add_wrapper_with_key(
        comfy.patcher_extension.WrappersMP.APPLY_MODEL, "neighbour", wrapper
    )
    return wrapped


def of(conditioning, rows):
    return {
        name: value[rows] if isinstance(value, torch.Tensor) else value
        for name, value in conditioning.items()
    }


WRAPPED = {"function": function_wrapped, "apply": apply_wrapped}


def behind(change):
    return lambda call, _batch: change(call(slice(None)))


def split(call, batch):
    return torch.cat([call(slice(row, row + 1)) for row in range(batch)])


def twice(call, _batch):
    return (call(slice(None)) + call(slice(None))) / 2


@pytest.fixture(scope="module", params=["demo", "flux"])
def any_scene(host, request):
    """A scene with a posterior, and how far tangent and ensemble agree on it."""
    demo = request.param == "demo"
    scene = request.getfixturevalue("scene") if demo else tiny_scene(host, request.param)
    laplace = scene.fit()
    return scene, laplace, agreement(scene, laplace)


def agreement(scene, laplace, **inputs):
    """Correlation of the maps of tangent and ensemble."""
    maps = []
    for method in ("tangent", "ensemble"):
        _, uncertainty = scene.uncertain(**inputs, laplace=laplace, method=method, members=24)
        assert not uncertainty.settings.failures
        maps.append(uncertainty.signal("posterior").map.flatten())
    return float(torch.corrcoef(torch.stack(maps))[0, 1])


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("change", NAMED)
def test_what_changes_the_output_is_named(any_scene, kind, change):
    scene, laplace, _ = any_scene
    model = WRAPPED[kind](scene.model, behind(change))
    found = f"stands something that ({NAMED[change]}).*wrapper.*Remove the node"
    with pytest.raises(ValueError, match=found):
        scene.fit(model=model)
    for method in ("tangent", "bayesdiff"):
        with pytest.raises(ValueError, match=found):
            scene.uncertain(model=model, laplace=laplace, method=method)
    samples, uncertainty = scene.uncertain(model=model)
    assert torch.equal(samples, scene.ksampler(model=model))
    assert "trajectory" in uncertainty.signals


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("change", HARMLESS)
def test_what_keeps_the_derivative_is_followed(any_scene, kind, change, monkeypatch):
    scene, _, without = any_scene
    # Differences over the usual step, 0.02, are a few roundings of bfloat16 long.
    monkeypatch.setattr(scene.host.module("bayesdiff_core.methods.tangent"), "STEP", 0.1)
    model = WRAPPED[kind](scene.model, behind(change))
    torch.manual_seed(1)
    laplace = scene.fit(model=model)
    assert agreement(scene, laplace, model=model) > 0.9 * without
    torch.manual_seed(2)
    stock = scene.ksampler(model=model)
    torch.manual_seed(2)
    assert torch.equal(scene.uncertain(model=model, laplace=laplace)[0], stock)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_in_bfloat16_is_fine(host, architecture):
    scene = tiny_scene(host, architecture)
    model, bfloat16 = scene.model.model, torch.bfloat16
    model.diffusion_model.to(bfloat16).dtype = bfloat16
    if architecture == "wan":  # keeps this one in float32
        model.diffusion_model.patch_embedding.float()
    model.manual_cast_dtype = bfloat16
    _, uncertainty = scene.uncertain(laplace=scene.fit())
    assert "posterior" in uncertainty.signals
    mirror = function_wrapped(scene.model, behind(mirrored))
    with pytest.raises(ValueError, match="moves or mirrors it"):
        scene.uncertain(model=mirror, laplace=scene.fit())


@pytest.mark.parametrize("kind", ["eps", "v"])
def test_every_kind_of_prediction_is_checked(scene, kind):
    model = scene.of_kind(kind)
    laplace = scene.fit(model=model)
    _, uncertainty = scene.uncertain(model=model, laplace=laplace)
    assert "posterior" in uncertainty.signals
    for change, words in ((rolled, "moves or mirrors"), (doubled, "multiplies it by 2")):
        with pytest.raises(ValueError, match=words):
            scene.uncertain(model=apply_wrapped(model, behind(change)), laplace=laplace)


SPOILED = {
    split: "a node splits the batch.*Remove that node",
    twice: "ran 2 times in one call of the model.*Remove nodes",
}


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("around", SPOILED)
def test_a_call_in_parts_costs_the_posterior_alone(any_scene, kind, around):
    scene, laplace, _ = any_scene
    model = WRAPPED[kind](scene.model, around)
    with pytest.raises(ValueError, match=SPOILED[around]):
        scene.fit(model=model)
    stock = scene.ksampler(model=model)
    for method in ("tangent", "ensemble", "bayesdiff"):
        samples, uncertainty = scene.uncertain(model=model, laplace=laplace, method=method)
        assert torch.equal(samples, stock)
        if (around, method) == (twice, "ensemble"):
            # Both calls have the moved weights, and nothing is taken from between them.
            assert "posterior" in uncertainty.signals
            continue
        (failure,) = uncertainty.settings.failures
        assert re.search(SPOILED[around], failure)
        assert "posterior" not in uncertainty.signals


@pytest.mark.parametrize(
    ("change", "cost"), [(None, 1), (noisy, 1), (shifted, 2)], ids=["none", "noisy", "shifted"]
)
def test_the_check_is_cheap_and_takes_no_random_numbers(host, change, cost):
    scene = tiny_scene(host, "flux")
    model = apply_wrapped(scene.model, behind(change)) if change else scene.model
    find = scene.host.module("nodes.host.last_layer")
    counts = []

    class Check(Probe):
        def sample(self, guider, sigmas, extra_args, _callback, noise, *_rest):
            calls = []
            given = (guider.inner_model, guider.conds, noise, sigmas[0],
                     extra_args["model_options"])  # fmt: skip
            layer = find.find_layer(*given)
            network = guider.inner_model.diffusion_model
            handle = network.register_forward_hook(lambda *_: calls.append(1))
            before = torch.get_rng_state()
            for _ in range(2):
                find.check_output(layer, *given)
                counts.append(len(calls))
            handle.remove()
            assert torch.equal(torch.get_rng_state(), before)
            return noise

    guider = cfg_guider(replace(scene, model=model), 3.0)
    samples = noise(scene.latent["samples"].shape, 3)
    with torch.inference_mode():
        guider.sample(
            noise(samples.shape, 4), samples, Check(scene, None), torch.tensor([0.7, 0.0]), seed=0
        )
    assert counts == [cost, cost]
