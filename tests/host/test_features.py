"""Guided features against the truth: move the weights themselves and look at the prediction.

The prediction is linear in the last layer's weights, so D(W + delta) - D(W) must be
c_out delta phi, for every element and whatever the guider makes of several conditionings.
"""

from contextlib import contextmanager

import pytest
import torch

from tests.host.conftest import noise


@contextmanager
def weights_moved(layer, delta):
    module = layer.layer.module
    weight, bias = module.weight.clone(), module.bias.clone()
    module.weight += delta[:, :-1].reshape(module.weight.shape)
    module.bias += delta[:, -1]
    try:
        yield
    finally:
        module.weight.copy_(weight)
        module.bias.copy_(bias)


class Probe:
    """Stands in for a sampler and gives a test the model as a sampler finds it."""

    def __init__(self, scene, test, reads_uncond=False):
        self.scene, self.test, self.reads_uncond = scene, test, reads_uncond

    def sample(
        self, guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable
    ):
        import comfy.samplers

        module = self.scene.host.module
        guider.conds = module("nodes.host.conditioning").align(guider.conds, len(noise))
        model_k = comfy.samplers.KSamplerX0Inpaint(guider, sigmas)
        model_k.noise, model_k.latent_image = noise, latent_image
        arguments = {**extra_args, "denoise_mask": denoise_mask}
        options = arguments["model_options"]
        module("nodes.host.memory").in_parts(options, len(noise))
        denoiser = module("nodes.host.denoiser").HostDenoiser(
            model_k, arguments, noise.shape, self.reads_uncond
        )
        layer = module("nodes.host.last_layer").find_layer(
            guider.inner_model, guider.conds, noise, sigmas[0], options
        )
        denoiser.tap = module("nodes.host.feature_tap").Tap(layer)
        denoiser.tap.install(options)
        self.test(denoiser, layer)
        return noise


def run(scene, guider, test, mask=None, reads_uncond=False):
    samples = 0.5 * noise(scene.latent["samples"].shape, 3)
    sigmas = torch.tensor([0.7, 0.0])
    with torch.inference_mode():
        guider.sample(
            noise(samples.shape, 4), samples, Probe(scene, test, reads_uncond), sigmas,
            denoise_mask=mask, seed=0,
        )  # fmt: skip


def deltas_for(layer, count):
    weights = layer.weights(torch.device("cpu"))
    return 0.1 * noise((count, *weights.shape), 9)


def unfolded(features):
    return torch.cat(list(features.pieces()), 1)


def effect_of(delta, evaluation, m, denoiser):
    """c_out delta phi on the latent, (B, C, *S)."""
    output_map = denoiser.output_map
    moved = unfolded(evaluation.features[m]) @ delta.T
    moved = moved[:, output_map.position, output_map.row] * output_map.sign
    return moved * evaluation.output_scale.view(-1, *[1] * (moved.ndim - 1))


def assert_close(found, truth, tolerance=1e-4):
    assert (found - truth).abs().max() < tolerance * truth.abs().max()


def check_features(outputs=1, tolerance=1e-4):
    def check(denoiser, layer):
        z, sigma = noise(denoiser.shape, 5), torch.tensor(0.7)
        (delta,) = deltas_for(layer, 1)
        evaluation = denoiser.evaluate(z, sigma)
        before = denoiser.predict(z, sigma)
        with weights_moved(layer, delta):
            after = denoiser.predict(z, sigma)
        assert len(before) == outputs
        mask = denoiser.arguments["denoise_mask"]
        for m in range(outputs):
            torch.testing.assert_close(evaluation.predictions[m], before[m], rtol=0, atol=0)
            effect = effect_of(delta, evaluation, m, denoiser)
            effect = effect if mask is None else effect * mask
            assert_close(effect, after[m] - before[m], tolerance)

    return check


def cfg_guider(scene, cfg, positive=None):
    import comfy.samplers

    guider = comfy.samplers.CFGGuider(scene.model)
    guider.set_conds(positive or scene.positive, scene.negative)
    guider.set_cfg(cfg)
    return guider


def several_positives(scene):
    """Prompts with areas, strengths and masks over one another, one of them cut by the border."""
    tensor = scene.positive[0][0]
    mask = torch.zeros(1, 16, 16)
    mask[:, 3:11, 5:] = 0.6
    return [
        [tensor, {}],
        [tensor.flip(0), {"area": (12, 8, 4, 8), "strength": 0.7}],
        [tensor.roll(1, 0), {"mask": mask, "mask_strength": 0.9}],
        [tensor[:1], {"area": (8, 16, 12, 4), "strength": 1.3}],
    ]


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_features_of_plain_guidance(scene, cfg):
    run(scene, cfg_guider(scene, cfg), check_features())


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_features_of_areas_masks_and_several_prompts(scene, cfg, monkeypatch):
    # One row of positions at a time: every piece has to find its part of every area.
    monkeypatch.setattr(scene.host.module("bayesdiff_core.features"), "PIECE_BYTES", 1)
    run(scene, cfg_guider(scene, cfg, several_positives(scene)), check_features())


def test_features_of_a_default_prompt(scene):
    tensor = scene.positive[0][0]
    positive = [[tensor.flip(0), {"area": (8, 8, 4, 4)}], [tensor, {"default": True}]]
    run(scene, cfg_guider(scene, 2.0, positive), check_features())


@pytest.mark.parametrize("percents", [(0.0, 0.2), (0.0, 0.5), (0.5, 1.0)])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_features_of_prompts_with_a_range(scene, percents, cfg):
    """At percent 0.3, where the features are looked at, some of these prompts are silent."""
    tensor = scene.positive[0][0]
    ranged = {"start_percent": percents[0], "end_percent": percents[1]}
    area = {"area": (8, 8, 4, 4), "start_percent": 0.1, "end_percent": 0.9}
    positive = [[tensor, ranged], [tensor.flip(0), area]]
    run(scene, cfg_guider(scene, cfg, positive), check_features())


def test_a_silent_prompt_has_no_features(scene):
    positive = [[scene.positive[0][0], {"start_percent": 0.5, "end_percent": 1.0}]]

    def check(denoiser, layer):
        evaluation = denoiser.evaluate(noise(denoiser.shape, 5), torch.tensor(0.7))
        (features,) = evaluation.features
        phi = unfolded(features)
        assert phi.shape == (3, denoiser.output_map.positions, layer.features)
        assert (phi == 0).all()

    run(scene, cfg_guider(scene, 1.0, positive), check)


def test_features_of_inpainting(scene):
    mask = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(2))
    run(scene, cfg_guider(scene, 3.0), check_features(), mask=mask)


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_features_of_both_predictions_that_cfg_pp_reads(scene, cfg):
    run(scene, cfg_guider(scene, cfg), check_features(outputs=2), reads_uncond=True)


def test_features_without_a_negative_prompt(scene):
    (guider,) = scene.host.call(
        "BasicGuider", model=scene.model, conditioning=scene.positive
    ).outputs
    run(scene, guider, check_features())


@pytest.mark.parametrize("style", ["regular", "nested"])
def test_features_of_two_prompts_guided_apart(scene, style):
    (guider,) = scene.host.call(
        "DualCFGGuider", model=scene.model, cond1=scene.positive,
        cond2=[[scene.positive[0][0].flip(0), {}]], negative=scene.negative,
        cfg_conds=3.0, cfg_cond2_negative=2.0, style=style,
    ).outputs  # fmt: skip
    run(scene, guider, check_features())


@pytest.mark.parametrize("node", ["RescaleCFG", "PerpNegGuider"])
def test_features_of_guiders_that_look_at_the_whole_latent(scene, node):
    """They are linearised: exact, to first order, for an error that all pixels share."""
    import comfy.samplers

    plain = {"positive": scene.positive, "negative": scene.negative, "cfg": 3.0}
    if node == "PerpNegGuider":
        other = [[scene.positive[0][0].flip(0), {}]]
        plain.update(negative=other, empty_conditioning=scene.negative, neg_scale=1.0)
        (guider,) = scene.host.call(node, model=scene.model, **plain).outputs
    else:
        (model,) = scene.host.call(node, model=scene.model, multiplier=0.7).outputs
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(plain["positive"], plain["negative"])
        guider.set_cfg(3.0)

    def check(denoiser, layer):
        z, sigma = noise(denoiser.shape, 5), torch.tensor(0.7)
        delta = torch.zeros_like(deltas_for(layer, 1)[0])
        delta[:, -1] = 2e-3
        evaluation = denoiser.evaluate(z, sigma)
        (before,) = denoiser.predict(z, sigma)
        with weights_moved(layer, delta):
            (after,) = denoiser.predict(z, sigma)
        effect = effect_of(delta, evaluation, 0, denoiser)
        # Float32 leaves about three digits of a difference this small.
        assert (effect - (after - before)).abs().max() < 2e-2 * effect.abs().max()

    run(scene, guider, check)


@pytest.mark.parametrize("case", ["plain", "several", "inpainting"])
def test_perturbed_copies_run_with_moved_weights(scene, case):
    """Copies are tile-major; each must see its own weights, prompts, masks and noise."""
    positive = several_positives(scene) if case == "several" else None
    mask = torch.rand(1, 16, 16) if case == "inpainting" else None

    def check(denoiser, layer):
        z, sigma = noise((2 * len(noise(denoiser.shape, 0)), *denoiser.shape[1:]), 5), 0.7
        sigma = torch.tensor(sigma)
        deltas = deltas_for(layer, 2)
        with denoiser.perturbed(deltas):
            (together,) = denoiser.predict(z, sigma)
        for delta, part, found in zip(deltas, z.chunk(2), together.chunk(2), strict=True):
            with weights_moved(layer, delta):
                (truth,) = denoiser.predict(part, sigma)
            torch.testing.assert_close(found, truth, rtol=1e-4, atol=2e-5)

    run(scene, cfg_guider(scene, 3.0, positive), check, mask=mask)


def test_prompts_that_do_not_fill_the_batch_line_up_in_copies(scene):
    """Two prompts for three latents: the host repeats them 1 2 1, in every copy."""
    positive = [[scene.positive[0][0][:2], {}]]

    def check(denoiser, layer):
        z, sigma = noise(denoiser.shape, 5), torch.tensor(0.7)
        (one,) = denoiser.predict(z, sigma)
        (three,) = denoiser.predict(z.repeat(3, 1, 1, 1), sigma)
        torch.testing.assert_close(three, one.repeat(3, 1, 1, 1), rtol=1e-4, atol=1e-5)

    run(scene, cfg_guider(scene, 3.0, positive), check)


def test_short_memory_halves_the_copies(scene, monkeypatch):
    sizes = []

    def check(denoiser, layer):
        z, sigma = noise((24, *denoiser.shape[1:]), 5), torch.tensor(0.7)
        deltas = deltas_for(layer, 8)
        with denoiser.perturbed(deltas):
            (plenty,) = denoiser.predict(z, sigma)
        network = scene.model.model.diffusion_model.network
        original = network.forward

        def limited(x, *args, **kwargs):
            sizes.append(len(x))
            if len(x) > 18:
                raise torch.cuda.OutOfMemoryError("too much")
            return original(x, *args, **kwargs)

        monkeypatch.setattr(network, "forward", limited)
        with denoiser.perturbed(deltas):
            (scarce,) = denoiser.predict(z, sigma)
        torch.testing.assert_close(scarce, plenty, rtol=1e-4, atol=1e-5)

    run(scene, cfg_guider(scene, 3.0), check)
    assert sizes == [2 * rows for rows in (24, 12, 6, 6, 6, 6)]


@pytest.mark.parametrize(
    ("room", "sizes"), [(0.5, [3] * 16), (3.5, [9] * 4 + [6] * 2), (100, [48])]
)
def test_copies_follow_the_free_memory(scene, monkeypatch, room, sizes):
    """`room` batches fit by the host's estimate; never fewer than one is tried.

    Where memory is short the host itself predicts the two sides one after the other.
    """
    import comfy.model_management

    found = []

    def check(denoiser, layer):
        z, sigma = noise((24, *denoiser.shape[1:]), 5), torch.tensor(0.7)
        deltas = deltas_for(layer, 8)
        with denoiser.perturbed(deltas):
            (plenty,) = denoiser.predict(z, sigma)
        network = scene.model.model.diffusion_model.network
        original = network.forward

        def watched(x, *args, **kwargs):
            found.append(len(x))
            return original(x, *args, **kwargs)

        needed = 1.5 * scene.model.model.memory_required(list(denoiser.shape))
        monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *_: room * needed)
        monkeypatch.setattr(network, "forward", watched)
        with denoiser.perturbed(deltas):
            (scarce,) = denoiser.predict(z, sigma)
        torch.testing.assert_close(scarce, plenty, rtol=1e-4, atol=1e-5)

    run(scene, cfg_guider(scene, 3.0), check)
    assert found == sizes
