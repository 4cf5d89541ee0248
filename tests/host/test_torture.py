"""What must hold whatever happens: exhausted memory, a failing network, neighbours, odd inputs."""

from __future__ import annotations

import os
import random
import traceback
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tests.host.conftest import Scene, noise
from tests.host.test_traces_left import fingerprint_of_the_host
from tests.host.tiny import prompt, tiny_scene
from tests.support.host import Host

STEPS = 2

POINTS = int(os.environ.get("TORTURE_POINTS", "10"))
"""At how many places of a node's run memory ends; `make torture` takes every one."""


@pytest.fixture(scope="module")
def small(scene: Scene) -> Scene:
    """The scene with one latent: what is tested here does not depend on the batch."""
    return replace(
        scene,
        latent={"samples": scene.latent["samples"][:1]},
        positive=[[scene.positive[0][0][:1], {}]],
        negative=[[scene.negative[0][0][:1], {}]],
    )


@pytest.fixture(scope="module")
def posterior(small: Scene) -> Any:
    return small.fit()


@pytest.fixture(scope="module")
def sampled(small: Scene) -> Any:
    samples, uncertainty = small.uncertain(steps=STEPS + 2, contrast=False)
    return SimpleNamespace(samples=samples, uncertainty=uncertainty)


def mask(rows: int = 16) -> Tensor:
    region = torch.zeros(1, rows, rows)
    region[:, :, : (rows + 1) // 2] = 1
    return region


# The nodes, each with inputs that let it do all it can.

Run = Callable[[Scene, Any, Any], Any]


def sampler(**options: Any) -> Run:
    def run(scene: Scene, posterior: Any, _sampled: Any) -> Any:
        inputs = scene.inputs(steps=STEPS, laplace=posterior, **options)
        return scene.host.call("UncertainKSampler", **inputs).outputs

    return run


def advanced_inputs(scene: Scene) -> dict[str, Any]:
    inputs = scene.inputs(steps=STEPS + 1)
    inputs["noise_seed"] = inputs.pop("seed")
    del inputs["denoise"]
    return {
        **inputs, "add_noise": "enable", "start_at_step": 1, "end_at_step": 10000,
        "return_with_leftover_noise": "disable",
    }  # fmt: skip


def advanced(scene: Scene, posterior: Any, _sampled: Any) -> Any:
    inputs = advanced_inputs(scene)
    node = "BayesDiffUncertainKSamplerAdvanced"
    return scene.host.call(node, **inputs, laplace=posterior).outputs


def custom_inputs(scene: Scene, sigmas: Tensor, cfg: float = 3.0) -> dict[str, Any]:
    call = scene.host.call
    guider = {"positive": scene.positive, "negative": scene.negative, "cfg": cfg}
    return {
        "noise": call("RandomNoise", noise_seed=4).outputs[0],
        "guider": call("CFGGuider", model=scene.model, **guider).outputs[0],
        "sampler": call("KSamplerSelect", sampler_name="euler").outputs[0],
        "sigmas": sigmas,
        "latent_image": scene.latent,
    }


def custom(scene: Scene, posterior: Any, _sampled: Any) -> Any:
    inputs = custom_inputs(scene, torch.tensor([0.9, 0.4, 0.0]))
    return scene.host.call("BayesDiffUncertainSamplerCustom", **inputs, laplace=posterior).outputs


def fit(scene: Scene, _posterior: Any, _sampled: Any) -> Any:
    return scene.fit()


def of_the_run(node_id: str, **options: Any) -> Run:
    def run(scene: Scene, posterior: Any, sampled: Any) -> Any:
        given = dict(options)
        if given.pop("with_posterior", False):
            given["laplace"] = posterior
        inputs = {
            "model": scene.model, "latent": {"samples": sampled.samples},
            "uncertainty": sampled.uncertainty, "positive": scene.positive,
            "negative": scene.negative, "seed": 1,
        }  # fmt: skip
        return scene.host.call(node_id, **inputs, **given).outputs

    return run


def heatmap(scene: Scene, _posterior: Any, sampled: Any) -> Any:
    return scene.host.call(
        "UncertaintyHeatmap", uncertainty=sampled.uncertainty, signal="trajectory",
        display="overlay", colormap="inferno", scale="image", opacity=0.5, threshold=90.0,
        grow=1, feather=1, image=torch.full((1, 16, 16, 3), 0.5),
    ).outputs  # fmt: skip


RESAMPLE = {
    "mask": mask(), "denoise": 0.7, "candidates": 2, "rule": "auto", "keep_original": True,
}  # fmt: skip
SAMPLERS: dict[str, Run] = {
    "tangent": sampler(),
    "ensemble": sampler(method="ensemble", members=2),
    "advanced": advanced,
    "custom": custom,
}
NODES: dict[str, Run] = {
    "fit": fit,
    "resample": of_the_run("MaskedResample", **RESAMPLE),
    "resample along the posterior": of_the_run(
        "MaskedResample", **RESAMPLE, noise_mode="posterior_tangents", with_posterior=True
    ),
    "diversity": of_the_run(
        "BayesDiffDiversity", variants=2, denoise=0.7, signal="trajectory", percentile=50.0
    ),
    "contrast": of_the_run("BayesDiffContrast"),
    "heatmap": heatmap,
}


def stock_of(name: str, scene: Scene) -> Tensor:
    """The latent of the host's own node for the sampler of that name."""
    if name == "advanced":
        (latent,) = scene.host.call("KSamplerAdvanced", **advanced_inputs(scene)).outputs
        return latent["samples"]
    if name == "custom":
        inputs = custom_inputs(scene, torch.tensor([0.9, 0.4, 0.0]))
        return scene.host.call("SamplerCustomAdvanced", **inputs).outputs[0]["samples"]
    return scene.ksampler(steps=STEPS)


def values(item: Any) -> list[Any]:
    """Every tensor, number and text in what a node returned."""
    if is_dataclass(item):
        item = [getattr(item, field.name) for field in fields(item)]
    if isinstance(item, dict):
        item = list(item.values())
    if isinstance(item, list | tuple):
        return [value for part in item for value in values(part)]
    return [item] if isinstance(item, Tensor | str | int | float) else []


def same(one: Any, other: Any) -> bool:
    ours, theirs = values(one), values(other)
    return len(ours) == len(theirs) and all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(ours, theirs)
    )


def is_a_sentence(error: BaseException) -> bool:
    """Whether an error was raised by this extension, for people."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    ours = "comfyui-bayesdiff" in last.filename and "site-packages" not in last.filename
    raised = (last.line or "").startswith("raise") and isinstance(error, ValueError)
    return ours and raised and len(str(error).split()) > 4


# Exhausted memory.


class OutOfMemoryAt(TorchFunctionMode):
    """Counts what makes a tensor, and lets the n-th find no memory."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n, self.made = n, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not any(result is given for given in args):
            self.made += 1
            if self.made == self.n:
                raise torch.cuda.OutOfMemoryError("injected")
        return result


def under(host: Any, mode: OutOfMemoryAt, work: Callable[[], Any]) -> Any:
    """`work` with the mode around every node, in the node's own thread."""
    own = type(host)._get_output

    async def within(*args: Any) -> Any:
        with mode:
            return await own(host, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vars(host), "_get_output", within)
        return work()


def evenly(total: int, count: int) -> list[int]:
    """At most so many of 1 .. total, the first and the last among them."""
    count = max(2, min(count, total))
    return sorted({1 + round(i * (total - 1) / (count - 1)) for i in range(count)})


@pytest.fixture
def spans(small: Scene, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How much the mode has counted when the image was finished, and the whole run."""
    run = small.host.module("nodes.host.uncertain_run").UncertainRun
    found: dict[str, Any] = {}

    def noted(name: str, own: Callable[..., Any], before: bool) -> Callable[..., Any]:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            if before:
                found[name] = found["mode"].made
            result = own(self, *args, **kwargs)
            if not before:
                found[name] = found["mode"].made
            return result

        return method

    found["mode"] = OutOfMemoryAt(0)
    monkeypatch.setattr(run, "_first_words", noted("image", run._first_words, before=True))
    monkeypatch.setattr(run, "sample", noted("run", run.sample, before=False))
    return found


@pytest.mark.parametrize("name", [*SAMPLERS, *NODES])
def test_memory_that_ends_anywhere(small, posterior, sampled, spans, name):
    """Written reports are left out: they are made on the CPU, of maps that are there."""
    run = {**SAMPLERS, **NODES}[name]
    stock = stock_of(name, small) if name in SAMPLERS else None

    def injected(n):
        spans.update(mode=OutOfMemoryAt(n), image=None)
        return under(small.host, spans["mode"], lambda: run(small, posterior, sampled))

    expected = run(small, posterior, sampled)
    before = fingerprint_of_the_host(small.model)
    assert same(injected(0), expected)
    total = spans["mode"].made if stock is None else spans["run"]
    for n in evenly(total, POINTS):
        try:
            outputs = injected(n)
        except (torch.cuda.OutOfMemoryError, ValueError) as error:
            assert not isinstance(error, ValueError) or is_a_sentence(error), n
            assert spans["image"] is None, f"{n} of {total}: the image was finished"
        else:
            if stock is not None:
                says_what_it_lost(outputs, stock, expected)
        assert fingerprint_of_the_host(small.model) == before, n
        assert same(run(small, posterior, sampled), expected), n


def test_exhausted_memory_is_not_taken_for_a_fault_of_the_sampler(small, monkeypatch):
    def exhausted(*_args, **_kwargs):
        raise torch.cuda.OutOfMemoryError("injected")

    monkeypatch.setattr(small.host.module("nodes.host.solver_run"), "_run_aside", exhausted)
    with pytest.raises(torch.cuda.OutOfMemoryError, match="injected"):
        small.uncertain(steps=STEPS)


def says_what_it_lost(outputs: Any, stock: Tensor, expected: Any) -> None:
    uncertainty = outputs[-3]
    said = uncertainty.settings
    assert torch.equal(outputs[0]["samples"], stock)
    if not said.failures and not said.recording_note:
        # Smaller calls round differently.
        for name, signal in expected[-3].signals.items():
            found = uncertainty.signals[name].map
            torch.testing.assert_close(found, signal.map, rtol=1e-3, atol=1e-5)
    for lost in {"contrast", "posterior"} - set(uncertainty.signals):
        assert any(sentence.startswith((lost, "the rest")) for sentence in said.failures)
    assert all(torch.isfinite(signal.map).all() for signal in uncertainty.signals.values())


# A network that fails.


def interrupted() -> None:
    import comfy.model_management

    comfy.model_management.interrupt_current_processing()
    comfy.model_management.throw_exception_if_processing_interrupted()


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


ACTS: dict[str, Callable[[], None]] = {
    "error": raising(RuntimeError("the network fails")),
    "ctrl-c": raising(KeyboardInterrupt()),
    "exit": raising(SystemExit(3)),
    "cancel": interrupted,
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("name", [name for name in NODES if name != "heatmap"])
def test_a_network_that_fails_at_any_call(small, posterior, sampled, monkeypatch, name, act):
    import comfy.model_management

    network = small.model.model.diffusion_model.network
    forward, calls, failing = network.forward, [], [0]

    def disturbed(*args, **kwargs):
        calls.append(1)
        if len(calls) == failing[0]:
            ACTS[act]()
        return forward(*args, **kwargs)

    def again():
        calls.clear()
        return NODES[name](small, posterior, sampled)

    monkeypatch.setattr(network, "forward", disturbed)
    expected, total = again(), len(calls)
    before = fingerprint_of_the_host(small.model)
    raised = {
        "error": RuntimeError, "ctrl-c": KeyboardInterrupt, "exit": SystemExit,
        "cancel": comfy.model_management.InterruptProcessingException,
    }  # fmt: skip
    for failing[0] in evenly(total, 4):
        with pytest.raises(raised[act]):
            again()
        assert fingerprint_of_the_host(small.model) == before, failing
    failing[0] = 0
    assert same(again(), expected)


# Hostile neighbours.


def function_wrapper(act: Callable[[Callable[..., Tensor], Tensor, Tensor, Any], Tensor]) -> Any:
    """A neighbour by `set_model_unet_function_wrapper`."""

    def on(model: Any) -> None:
        def wrapper(apply: Any, args: dict[str, Any]) -> Tensor:
            call = lambda x, t, c: apply(x, t, **c)  # noqa: E731
            return act(call, args["input"], args["timestep"], args["c"])

        model.set_model_unet_function_wrapper(wrapper)

    return on


def apply_wrapper(act: Callable[[Any, Tensor, Tensor, tuple[Any, ...], Any], Tensor]) -> Any:
    """A neighbour by an APPLY_MODEL wrapper."""

    def on(model: Any) -> None:
        import comfy.patcher_extension

        def wrapper(executor: Any, x: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return act(executor, x, t, args, kwargs)

        kind = comfy.patcher_extension.WrappersMP.APPLY_MODEL
        model.add_wrapper_with_key(kind, "neighbour", wrapper)

    return on


def caching() -> Callable[..., Tensor]:
    """Answers every second call of a shape as it answered the one before."""
    last: dict[Any, Tensor] = {}

    def act(executor: Any, x: Tensor, t: Tensor, args: Any, kwargs: Any) -> Tensor:
        kept = last.pop(x.shape, None)
        if kept is not None:
            return kept.clone()
        last[x.shape] = executor(x, t, *args, **kwargs)
        return last[x.shape].clone()

    return act


def half_by_half(call: Any, x: Tensor, t: Tensor, c: Any) -> Tensor:
    def rows(value: Any, part: slice) -> Any:
        return value[part] if isinstance(value, Tensor) and len(value) == len(x) else value

    parts = [slice(i, i + 1) for i in range(len(x))]
    return torch.cat([call(x[p], t[p], {k: rows(v, p) for k, v in c.items()}) for p in parts])


def reordered(call: Any, x: Tensor, t: Tensor, c: Any) -> Tensor:
    def turned(value: Any) -> Any:
        same_rows = isinstance(value, Tensor) and len(value) == len(x)
        return value.flip(0) if same_rows else value

    return call(x.flip(0), t.flip(0), {k: turned(v) for k, v in c.items()}).flip(0)


def compiled(executor: Any, x: Tensor, t: Tensor, args: Any, kwargs: Any) -> Tensor:
    """As the host runs a compiled model: another module takes the network's place for a call."""
    model = executor.class_obj
    network = model.diffusion_model

    class Compiled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._orig_mod = network
            self.dtype = network.dtype

        def forward(self, *given: Any, **named: Any) -> Any:
            return self._orig_mod(*given, **named)

    model.diffusion_model = Compiled()
    try:
        return executor(x, t, *args, **kwargs)
    finally:
        model.diffusion_model = network


def sampling_wrapper(kind: str, act: Callable[[], Any]) -> Any:
    def on(model: Any) -> None:
        import comfy.patcher_extension

        def wrapper(executor: Any, *args: Any, **kwargs: Any) -> Any:
            act()
            return executor(*args, **kwargs)

        kinds = comfy.patcher_extension.WrappersMP
        model.add_wrapper_with_key(getattr(kinds, kind), "neighbour", wrapper)

    return on


NEIGHBOURS: dict[str, Callable[[], Any]] = {
    "function as it is": lambda: function_wrapper(lambda call, x, t, c: call(x, t, c)),
    "function draws noise": lambda: function_wrapper(
        lambda call, x, t, c: call(x, t, c) + 1e-3 * torch.randn_like(x)
    ),
    "function mirrors": lambda: function_wrapper(lambda call, x, t, c: call(x, t, c).flip(-1)),
    "function scales": lambda: function_wrapper(lambda call, x, t, c: 2 * call(x, t, c)),
    "function clamps": lambda: function_wrapper(lambda call, x, t, c: call(x, t, c).clamp(-1, 1)),
    "function in half precision": lambda: function_wrapper(
        lambda call, x, t, c: call(x, t, c).half().to(x)
    ),
    "function calls twice": lambda: function_wrapper(
        lambda call, x, t, c: (call(x, t, c) + call(x, t, c)) / 2
    ),
    "function goes row by row": lambda: function_wrapper(half_by_half),
    "function reorders": lambda: function_wrapper(reordered),
    "function ignores the network": lambda: function_wrapper(lambda call, x, t, c: x * 0.5),
    "apply caches": lambda: apply_wrapper(caching()),
    "apply draws noise": lambda: apply_wrapper(
        lambda executor, x, t, args, kwargs: executor(x + torch.randn_like(x), t, *args, **kwargs)
    ),
    "apply writes into the output": lambda: apply_wrapper(
        lambda executor, x, t, args, kwargs: executor(x, t, *args, **kwargs).mul_(0.9)
    ),
    "apply compiles": lambda: apply_wrapper(compiled),
    "outer draws noise": lambda: sampling_wrapper("OUTER_SAMPLE", lambda: torch.randn(3)),
    "sampler draws noise": lambda: sampling_wrapper("SAMPLER_SAMPLE", lambda: torch.randn(3)),
    "prediction draws noise": lambda: sampling_wrapper("PREDICT_NOISE", lambda: torch.randn(3)),
    "batch draws noise": lambda: sampling_wrapper("CALC_COND_BATCH", lambda: torch.randn(3)),
}


def stock_and_ours(scene: Scene, fresh: Callable[[], Any], **options: Any) -> list[Tensor]:
    """Both latents from the same global seed, each of a model of its own, and nothing left."""
    inputs = {"steps": 3, **options.pop("inputs", {})}
    torch.manual_seed(3)
    stock, state = scene.ksampler(model=fresh(), **inputs), torch.get_rng_state()
    model = fresh()
    before = fingerprint_of_the_host(model)
    torch.manual_seed(3)
    ours, uncertainty = scene.uncertain(model=model, **inputs, **options)
    assert torch.equal(torch.get_rng_state(), state)
    assert fingerprint_of_the_host(model) == before
    assert all(torch.isfinite(signal.map).all() for signal in uncertainty.signals.values())
    return [stock, ours]


METHODS = ["tangent", "ensemble"]


REFUSED_WITH_A_POSTERIOR = {
    "function mirrors",
    "function scales",
    "function clamps",
    "apply writes into the output",
}
"""What changes the network's output behind it: a posterior would be wrong, and is refused."""


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_neighbours_on_the_model(small, posterior, name):
    def fresh():
        model = small.model.clone()
        NEIGHBOURS[name]()(model)
        return model

    stock, ours = stock_and_ours(small, fresh)
    assert torch.equal(ours, stock)
    for method in METHODS:
        given = {"laplace": posterior, "method": method, "members": 2}
        if name in REFUSED_WITH_A_POSTERIOR:
            with pytest.raises(ValueError, match="Remove|remove|without"):
                stock_and_ours(small, fresh, **given)
            continue
        stock, ours = stock_and_ours(small, fresh, **given)
        assert torch.equal(ours, stock), given


def hooked(_module: Any, _args: Any, output: Tensor) -> Tensor:
    return output + 1e-3 * torch.randn_like(output)


@pytest.mark.parametrize("where", ["last layer", "network", "before the last layer"])
def test_neighbours_with_hooks_on_layers(small, posterior, where):
    network = small.model.model.diffusion_model.network
    last = network.out[2]
    if where == "before the last layer":
        handle = last.register_forward_pre_hook(lambda _m, args: (args[0] * 1.01, *args[1:]))
    else:
        handle = (last if where == "last layer" else network).register_forward_hook(hooked)
    try:
        for method in METHODS:
            options = {"laplace": posterior, "method": method, "members": 2}
            stock, ours = stock_and_ours(small, small.model.clone, **options)
            assert torch.equal(ours, stock)
    finally:
        handle.remove()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ["draws", "skips", "returns early"])
def test_a_sampler_that_was_replaced(small, posterior, monkeypatch, how, method):
    from comfy.k_diffusion import sampling

    def replaced(model, x, sigmas, extra_args=None, callback=None, disable=None, **_options):
        ones = x.new_ones(len(x))
        for i in range(len(sigmas) - 1):
            denoised = model(x, sigmas[i] * ones, **(extra_args or {}))
            if callback is not None:
                callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i],
                          "denoised": denoised})  # fmt: skip
            if how == "returns early":
                return denoised
            step = (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
            if how == "skips" and i == 1:
                continue
            x = x + step
            if how == "draws":
                x = x + 0.1 * sampling.torch.randn_like(x) * sigmas[i + 1]
        return x

    monkeypatch.setattr(sampling, "sample_euler", replaced)
    options = {"laplace": posterior, "method": method, "members": 2}
    stock, ours = stock_and_ours(small, small.model.clone, **options)
    assert torch.equal(ours, stock)


# Odd inputs.


@pytest.fixture(scope="module")
def anything(host: Host) -> dict[str, tuple[Scene, Any]]:
    """Networks that take latents of every size, each with a posterior."""
    scenes = {name: tiny_scene(host, name) for name in ("unet", "flux")}
    return {
        name: (scene, scene.fit(conditioning=scene.negative, draws=1))
        for name, scene in scenes.items()
    }


def odd_inputs(seed: int) -> dict[str, Any]:
    """Schedules of one and two levels, tiny latents, batches that do not match, ..."""
    chance = random.Random(seed)
    batch = chance.choice([1, 1, 2, 3])
    size = chance.choice([(1, 1), (1, 1), (1, 4), (2, 2), (3, 5), (4, 4), (16, 16), (7, 1)])
    rows = chance.choice([1, 1, batch, 2])
    sigmas = chance.choice([None, None, [0.5], [0.8, 0.0], [0.8, 0.3], [0.9, 0.9]])
    return {
        "shape": (batch, size),
        # The tiny U-Net halves the latent, and cannot normalize a single element of one sample.
        "model": "flux" if max(size) < 3 else chance.choice(["unet", "flux"]),
        "rows": rows,
        "sigmas": sigmas,
        "sampling": {
            "steps": chance.choice([1, 2]),
            "cfg": chance.choice([0.0, -1.5, 1.0, 3.0]),
            "denoise": chance.choice([1.0, 1.0, 0.5, 0.01]),
            "sampler_name": chance.choice(
                ["euler", "dpmpp_2m", "heun", "euler_ancestral", "dpmpp_2m_sde"]
            ),
            "scheduler": chance.choice(["simple", "normal", "karras"]),
        },
        "options": {"method": chance.choice(METHODS), "members": 2},
        "posterior": chance.random() < 0.5,
        "mask": torch.rand(
            chance.choice([1, batch]), chance.choice([1, 3, 16, 65]), chance.choice([1, 5, 64]),
            generator=torch.Generator().manual_seed(seed),
        ).round(),
        "resample": {
            "denoise": chance.choice([0.01, 0.5, 1.0]),
            "candidates": chance.choice([1, 2]),
            "rule": chance.choice(["auto", "random", "all", "trajectory"]),
            "steps": chance.choice([0, 0, 1, 2]),
        },
    }  # fmt: skip


def check_resampled(scene: Scene, given: dict[str, Any], samples: Tensor, found: Any) -> None:
    """What is not in the mask stays, and all that comes out is finite; or a sentence comes."""
    try:
        latent, after, _ = scene.host.call(
            "MaskedResample", model=scene.model, latent={"samples": samples}, uncertainty=found,
            mask=given["mask"], positive=scene.positive, negative=scene.negative, seed=1,
            keep_original=True, cfg=0.0, **given["resample"],
        ).outputs  # fmt: skip
    except ValueError as error:
        assert is_a_sentence(error), repr(error)
        return
    result = latent["samples"]
    assert torch.isfinite(result).all()
    assert all(torch.isfinite(signal.map).all() for signal in after.signals.values())
    region = scene.host.module("nodes.host.validation").latent_mask(given["mask"], samples)
    outside = (region == 0).expand_as(samples)
    for copy in result.unflatten(0, (-1, len(samples))):
        assert torch.equal(copy[outside], samples[outside])


@pytest.mark.parametrize("seed", range(60))
def test_odd_inputs_give_the_stock_image_or_a_sentence(anything, seed):
    given = odd_inputs(seed)
    scene, laplace = anything[given["model"]]
    batch, size = given["shape"]
    samples = noise((batch, scene.latent["samples"].shape[1], *size), seed)
    scene = replace(scene, positive=prompt(given["rows"], seed, {}), latent={"samples": samples})
    options = {**given["options"], "laplace": laplace if given["posterior"] else None}
    if given["sigmas"] is None:
        nodes, inputs = ("KSampler", "UncertainKSampler"), scene.inputs(**given["sampling"])
    else:
        nodes = ("SamplerCustomAdvanced", "BayesDiffUncertainSamplerCustom")
        cfg = given["sampling"]["cfg"]
        inputs = custom_inputs(scene, torch.tensor(given["sigmas"]), cfg)
    before = fingerprint_of_the_host(scene.model)
    try:
        stock = scene.host.call(nodes[0], **inputs).outputs[0]["samples"]
    except Exception as error:
        pytest.skip(f"the host's own node fails: {error}")
    try:
        outputs = scene.host.call(nodes[1], **inputs, **options).outputs
    except ValueError as error:
        assert is_a_sentence(error), repr(error)
        return
    finally:
        assert fingerprint_of_the_host(scene.model) == before
    samples, uncertainty = outputs[0]["samples"], outputs[-3]
    torch.testing.assert_close(samples, stock, rtol=0, atol=0, equal_nan=True)
    assert all(torch.isfinite(signal.map).all() for signal in uncertainty.signals.values())
    check_resampled(scene, given, samples, uncertainty)
    assert fingerprint_of_the_host(scene.model) == before


@pytest.mark.parametrize("sigmas", [[0.5], [0.8, 0.0]])
def test_a_model_that_does_not_run_on_a_single_sample(anything, sigmas):
    """The host calls this one with two rows, for both prompts, or not at all."""
    scene, laplace = anything["unet"]
    latent = {"samples": noise((1, 4, 2, 2), 1)}
    scene = replace(scene, latent=latent, positive=prompt(1, 1, {}))
    inputs = custom_inputs(scene, torch.tensor(sigmas))
    (stock, _) = scene.host.call("SamplerCustomAdvanced", **inputs).outputs
    node_id = "BayesDiffUncertainSamplerCustom"
    ours, *_ = scene.host.call(node_id, **inputs, laplace=laplace).outputs
    assert torch.equal(ours["samples"], stock["samples"])
