"""Random valid workflows over all nodes of the extension, with the bundled models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from demo.bundle import load_config
from tests.soak.graph import STEPS, Graph, Link

__all__ = [
    *("REFERENCES", "Workflow"),
    *("posterior_files", "random_workflow", "reference_workflow"),
]

NAMES = ("digits", "emoji", "letters")
REFERENCES = NAMES
FILES_A_MODEL = 3
STOCK = {
    "UncertainKSampler": "KSampler",
    "BayesDiffUncertainKSamplerAdvanced": "KSamplerAdvanced",
    "BayesDiffUncertainSamplerCustom": "SamplerCustomAdvanced",
}
"""The host's node that makes the same latent."""
SINGLE_STEP = ("euler", "euler_ancestral", "ddim", "dpm_2")
"""Samplers that the method bayesdiff covers."""
OPTION_SAMPLERS = (
    *("SamplerEulerAncestral", "SamplerLMS", "SamplerDPMPP_2M_SDE", "SamplerDPMPP_3M_SDE"),
    *("SamplerDPMPP_SDE", "SamplerDPMAdaptative", "SamplerER_SDE"),
)


@dataclass
class Workflow:
    """A prompt, what it is made of, and which of its digests must agree.

    `digests` are the ids of digest nodes by what they hash, `same` pairs of them.
    """

    graph: Graph
    parts: list[str]
    digests: dict[str, str] = field(default_factory=dict)
    same: list[tuple[str, str]] = field(default_factory=list)

    @property
    def prompt(self) -> dict[str, Any]:
        return self.graph.prompt

    def keep(self, name: str, value: Link) -> None:
        self.digests[name] = self.graph.add("SoakDigest", value=value)


@dataclass
class Scene:
    """A bundled model with its prompts, and what has been sampled with it so far."""

    workflow: Workflow
    name: str
    model: Link
    vae: Link
    positive: Link
    negative: Link
    empty: Link
    laplace: Link | None = None
    latent: Link | None = None
    uncertainty: Link | None = None
    recorded: bool = False
    signals: list[str] = field(default_factory=lambda: ["artifact", "trajectory"])

    @property
    def graph(self) -> Graph:
        return self.workflow.graph

    @property
    def prompts(self) -> dict[str, Link]:
        return {"model": self.model, "positive": self.positive, "negative": self.negative}

    def signal(self) -> str:
        return self.graph.random.choice(self.signals)

    def picture(self) -> Link:
        return self.graph.out("VAEDecode", samples=self.latent, vae=self.vae)

    def mask(self) -> Link:
        """A rectangle or the heatmap's own mask."""
        graph = self.graph
        if self.uncertainty is not None and graph.chance(0.5):
            heatmap = graph.add("UncertaintyHeatmap", uncertainty=self.uncertainty, vae=None,
                                signal="artifact", image=None, step=0, minimum_area=0,
                                threshold_by="percentile", threshold=90.0, grow=1.0)  # fmt: skip
            return [heatmap, 1]
        size, part = graph.random.choice([16, 32, 256]), graph.random.uniform(0.2, 0.9)
        ground = graph.out("SolidMask", value=0.0, width=size, height=size)
        sides = {name: max(1, int(size * part)) for name in ("width", "height")}
        corner = {name: int(size * graph.random.uniform(0, 1 - part)) for name in ("x", "y")}
        patch = graph.out("SolidMask", value=graph.random.choice([1.0, 0.5]), **sides)
        return graph.out(
            "MaskComposite", destination=ground, source=patch, operation="add", **corner
        )


def random_workflow(info: dict[str, Any], random: Random) -> Workflow:
    """Sampling, mostly with a posterior, and one to three of the other nodes after it."""
    graph = Graph(info, random)
    scene = _scene(
        graph,
        random.choice(NAMES),
        random.choice([1, 1, 1, 2, 2, 3, 4]),
        random.randrange(1 << 31),
    )
    if graph.chance(0.25):
        patch = random.choice(["RescaleCFG", "ModelSamplingSD3"])
        patched = graph.out(patch, model=scene.model)
        scene.model = graph.out("SoakWitness", model=patched, nonce=0)
    if graph.chance(0.65):
        scene.laplace = _posterior(scene)
    _sample(scene)
    followers = list(FOLLOWERS)
    for name in random.sample(followers, random.choice([1, 1, 2, 3])):
        FOLLOWERS[name](scene)
        scene.workflow.parts.append(name)
    return scene.workflow


def reference_workflow(info: dict[str, Any], name: str, nonce: int) -> Workflow:
    """The same workflow whenever `name` is; the nonce keeps the host from reusing results."""
    graph = Graph(info, Random(name))
    scene = _scene(graph, name, 2, nonce)
    scene.laplace = _fit(scene, 2)
    schedule = {"steps": 5, "sampler_name": "dpmpp_2m_sde", "scheduler": "simple", "cfg": 3.0}
    fixed = {"denoise": 1.0, "contrast": True, "method": "tangent", "preset": "balanced"}
    _ksampler(scene, **schedule, **fixed, recording_mb=2048)
    heatmap = graph.add("UncertaintyHeatmap", uncertainty=scene.uncertainty, vae=scene.vae,
                        image=scene.picture(), step=0)  # fmt: skip
    resampled = graph.add(
        "MaskedResample", **scene.prompts, latent=scene.latent, uncertainty=scene.uncertainty,
        mask=[heatmap, 1], laplace=None, candidates=2, rounds=1, rule="auto", denoise=0.6,
        noise_mode="denoised", sampler_name="recorded", scheduler="recorded", steps=0, cfg=0.0,
    )  # fmt: skip
    scene.workflow.keep("posterior", scene.laplace)
    scene.workflow.keep("heatmap", [heatmap, 0])
    scene.workflow.keep("resampled", [resampled, 0])
    scene.workflow.keep("resampled maps", [resampled, 1])
    scene.workflow.parts[:] = ["reference"]
    return scene.workflow


def posterior_files(info: dict[str, Any]) -> Workflow:
    """Fits and saves what later prompts load."""
    graph = Graph(info, Random(0))
    for name in NAMES:
        scene = _scene(graph, name, 2, 0)
        fitted = _fit(scene, 1)
        for file in range(FILES_A_MODEL):
            graph.add("BayesDiffSaveLaplace", laplace=fitted, filename=f"{name}-{file}")
    return scene.workflow


def _scene(graph: Graph, name: str, batch: int, nonce: int) -> Scene:
    loaded = graph.add("BayesDiffDemoModel", name=name)
    model = graph.out("SoakWitness", model=[loaded, 0], nonce=nonce)

    def prompt(lines: int) -> Link:
        text = "\n".join(_words(name, graph.random) for _ in range(lines))
        return graph.out("BayesDiffDemoPrompt", model=model, text=text)

    positive, empty = prompt(graph.random.choice([1, batch])), prompt(0)
    negative = prompt(1) if graph.chance(0.2) else empty
    workflow = Workflow(graph, [f"{name} x{batch}"])
    scene = Scene(workflow, name, model, [loaded, 1], positive, negative, empty)
    scene.latent = graph.out("BayesDiffDemoLatent", model=model, batch_size=batch)
    return scene


def _words(name: str, random: Random) -> str:
    config = load_config(name)
    return " ".join(random.choices(config.class_names, k=config.n_labels))


def _posterior(scene: Scene) -> Link:
    """Read from a file, or fitted to samples of the model and perhaps saved."""
    graph = scene.graph
    files = graph.choices("BayesDiffLoadLaplace", "filename")
    own = [file for file in files if file.startswith(f"{scene.name}-")]
    if own and graph.chance(0.4):
        scene.workflow.parts.append("load")
        return graph.out("BayesDiffLoadLaplace", filename=graph.random.choice(own))
    scene.workflow.parts.append("fit")
    fitted = _fit(scene, None)
    if graph.chance(0.5):
        scene.workflow.parts.append("save")
        filename = f"{scene.name}-{graph.random.randrange(FILES_A_MODEL)}"
        return graph.out("BayesDiffSaveLaplace", laplace=fitted, filename=filename)
    return fitted


def _fit(scene: Scene, draws: int | None) -> Link:
    graph = scene.graph
    schedule = {"sampler_name": "euler", "scheduler": "simple", "seed": 1, "steps": 3, "cfg": 2.0}
    images = graph.out("KSampler", **scene.prompts, latent_image=scene.latent, **schedule)
    inputs = {} if draws is None else {"draws": draws}
    return graph.out(
        "LaplaceFit", model=scene.model, latents=images, conditioning=scene.positive, **inputs
    )


def _sample(scene: Scene) -> None:
    """Replaces the latent of the scene by a sampled one, with its uncertainty."""
    random = scene.graph.random
    random.choices([_ksampler, _advanced, _custom], [5, 2, 3])[0](scene)


def _ksampler(scene: Scene, **inputs: Any) -> None:
    inputs.setdefault("denoise", scene.graph.random.choice([1.0, 1.0, 0.6, 0.2]))
    if "method" not in inputs:
        inputs |= _method(scene)
    _sampled(scene, "UncertainKSampler", **scene.prompts, **inputs)


def _advanced(scene: Scene) -> None:
    random = scene.graph.random
    steps = random.choice(STEPS)
    start = random.choice([0, 0, random.randrange(steps)])
    end = random.choice([10000, random.randint(start + 1, steps)])
    _sampled(
        scene, "BayesDiffUncertainKSamplerAdvanced", **scene.prompts, steps=steps,
        start_at_step=start, end_at_step=end, **_method(scene),
    )  # fmt: skip


def _method(scene: Scene) -> dict[str, Any]:
    """A method, and a sampler that it covers, mostly."""
    random = scene.graph.random
    if scene.laplace is None or random.random() < 0.8:
        return {"method": random.choice(["tangent", "ensemble"])}
    sampler = {} if random.random() < 0.1 else {"sampler_name": random.choice(SINGLE_STEP)}
    return {"method": "bayesdiff", **sampler}


def _custom(scene: Scene) -> None:
    graph, random = scene.graph, scene.graph.random
    model, positive, negative = scene.prompts.values()
    cfg = round(random.uniform(0.5, 6), 2)
    guider = random.choice([
        lambda: graph.out("BasicGuider", model=model, conditioning=positive),
        lambda: graph.out("CFGGuider", **scene.prompts, cfg=cfg),
        lambda: graph.out("DualCFGGuider", model=model, cond1=positive, cond2=scene.empty,
                          negative=negative, cfg_conds=cfg),
        lambda: graph.out("PerpNegGuider", **scene.prompts, empty_conditioning=scene.empty,
                          cfg=cfg),
    ])()  # fmt: skip
    named = random.choice(graph.choices("KSamplerSelect", "sampler_name"))
    sampler = (
        graph.out("KSamplerSelect", sampler_name=named)
        if graph.chance(0.6)
        else graph.out(random.choice(OPTION_SAMPLERS))
    )
    steps, scheduler = random.choice(STEPS), graph.choices("BasicScheduler", "scheduler")
    sigmas = (
        graph.out("KarrasScheduler", steps=steps, sigma_max=1.0, sigma_min=0.03)
        if graph.chance(0.3)
        else graph.out("BasicScheduler", model=model, scheduler=random.choice(scheduler),
                       steps=steps)
    )  # fmt: skip
    noise = graph.out("RandomNoise", noise_seed=random.randrange(1 << 32))
    _sampled(
        scene, "BayesDiffUncertainSamplerCustom", noise=noise, guider=guider, sampler=sampler,
        sigmas=sigmas,
    )  # fmt: skip


def _sampled(scene: Scene, node: str, **inputs: Any) -> None:
    graph, workflow = scene.graph, scene.workflow
    latent = scene.latent
    if graph.chance(0.15):
        latent = graph.out("SetLatentNoiseMask", samples=latent, mask=scene.mask())
    node_id = graph.add(node, **inputs, latent_image=latent, laplace=scene.laplace)
    chosen = graph.prompt[node_id]["inputs"]
    custom = node == "BayesDiffUncertainSamplerCustom"
    scene.latent, scene.uncertainty = [node_id, 0], [node_id, 2 if custom else 1]
    workflow.parts.append(node.removeprefix("BayesDiff"))
    workflow.keep("latent", scene.latent)
    workflow.keep("uncertainty", scene.uncertainty)
    scene.recorded = chosen["recording_mb"] > 0
    if chosen["contrast"] and node == "UncertainKSampler":
        scene.signals.append("contrast")
    if scene.laplace is not None:
        scene.signals.append("posterior")
    changes_latent = scene.laplace is not None and chosen["method"] == "bayesdiff"
    if graph.chance(0.5) and not changes_latent:
        workflow.keep("stock latent", [graph.twin(node_id, STOCK[node]), 0])
        workflow.same.append(("latent", "stock latent"))


def _heatmap(scene: Scene) -> None:
    picture = scene.picture() if scene.graph.chance(0.7) else None
    vae = scene.vae if picture and scene.graph.chance(0.5) else None
    scene.graph.add("UncertaintyHeatmap", uncertainty=scene.uncertainty, image=picture, vae=vae,
                    signal=scene.signal())  # fmt: skip


def _plot(scene: Scene) -> None:
    scene.graph.add(
        "BayesDiffUncertaintyPlot", uncertainty=scene.uncertainty, signal=scene.signal()
    )


def _rank(scene: Scene) -> None:
    ranked = scene.graph.add("BayesDiffRank", uncertainty=scene.uncertainty, signal=scene.signal(),
                             image=scene.picture(), latent=scene.latent)  # fmt: skip
    scene.workflow.keep("ranked", [ranked, 1])


def _contrast(scene: Scene) -> None:
    known = scene.uncertainty if scene.graph.chance(0.6) else None
    found = scene.graph.out(
        "BayesDiffContrast", **scene.prompts, latent=scene.latent, uncertainty=known
    )
    scene.workflow.keep("contrast", found)


def _resample(scene: Scene) -> None:
    graph = scene.graph
    modes = graph.choices("MaskedResample", "noise_mode")
    inputs: dict[str, Any] = {"uncertainty": scene.uncertainty}
    if graph.chance(0.6):
        inputs |= {"sampler_name": "recorded", "scheduler": "recorded", "steps": 0, "cfg": 0.0}
        if scene.laplace is None or not scene.recorded:
            inputs["noise_mode"] = graph.random.choice(modes[:3])
    else:
        own = ("sampler_name", "scheduler")
        inputs |= {n: graph.random.choice(graph.choices("MaskedResample", n)[1:]) for n in own}
        inputs["noise_mode"] = graph.random.choice(modes[:3])
        inputs["uncertainty"] = graph.random.choice([scene.uncertainty, None])
    resampled = graph.add(
        "MaskedResample", **scene.prompts, latent=scene.latent, mask=scene.mask(),
        laplace=scene.laplace, **inputs,
    )  # fmt: skip
    scene.workflow.keep("resampled", [resampled, 0])
    if inputs["uncertainty"] and graph.prompt[resampled]["inputs"]["rule"] != "all":
        scene.latent, scene.uncertainty = [resampled, 0], [resampled, 1]
        scene.signals = ["artifact"]


def _diversity(scene: Scene) -> None:
    along = None if scene.laplace else {"along": "regions"}
    varied = scene.graph.out(
        "BayesDiffDiversity", **scene.prompts, latent=scene.latent, laplace=scene.laplace,
        uncertainty=scene.uncertainty, mask=scene.mask() if scene.graph.chance(0.4) else None,
        cfg=scene.graph.random.choice([0.0, 2.0]), signal=scene.signal(), **(along or {}),
    )  # fmt: skip
    scene.workflow.keep("variants", varied)


FOLLOWERS: dict[str, Callable[[Scene], None]] = {
    "heatmap": _heatmap,
    "plot": _plot,
    "rank": _rank,
    "contrast": _contrast,
    "resample": _resample,
    "diversity": _diversity,
}
