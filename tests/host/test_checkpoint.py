"""Measuring a checkpoint through the real host: its executor, its loaders, its CLIP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.checkpoint import CheckpointError
from benchmarks.checkpoint.__main__ import DIGITS, judge, random_digits
from benchmarks.checkpoint.clip import agreement, load_clip
from benchmarks.checkpoint.host import Executor, Seen, start_host
from benchmarks.checkpoint.runs import BASELINES, Runs, maps_of, read_picture
from benchmarks.checkpoint.workflow import examine, read_workflow
from tests.support.host import Host
from tests.support.host_location import ROOT

LETTERS = {
    "1": {
        "class_type": "UNETLoader",
        "inputs": {"unet_name": "checkpoint_letters.safetensors", "weight_dtype": "default"},
    },
    "2": {"class_type": "VAELoader", "inputs": {"vae_name": "checkpoint_vae.safetensors"}},
    "3": {
        "class_type": "BayesDiffDemoPrompt",
        "inputs": {"model": ["1", 0], "text": "B A K E\nF R E T"},
    },
    "4": {"class_type": "BayesDiffDemoPrompt", "inputs": {"model": ["1", 0], "text": ""}},
    "5": {"class_type": "BayesDiffDemoLatent", "inputs": {"model": ["1", 0], "batch_size": 2}},
    "6": {"class_type": "RandomNoise", "inputs": {"noise_seed": 0}},
    "7": {
        "class_type": "CFGGuider",
        "inputs": {"model": ["1", 0], "positive": ["3", 0], "negative": ["4", 0], "cfg": 1.5},
    },
    "8": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
    "9": {
        "class_type": "BasicScheduler",
        "inputs": {"model": ["1", 0], "scheduler": "simple", "steps": 4, "denoise": 1.0},
    },
    "10": {
        "class_type": "BayesDiffUncertainSamplerCustom",
        "inputs": {
            "noise": ["6", 0], "guider": ["7", 0], "sampler": ["8", 0], "sigmas": ["9", 0],
            "latent_image": ["5", 0],
        },
    },
    "11": {"class_type": "VAEDecode", "inputs": {"samples": ["10", 0], "vae": ["2", 0]}},
    "12": {"class_type": "PreviewImage", "inputs": {"images": ["11", 0]}},
}  # fmt: skip


def digits(**sampler: Any) -> dict[str, Any]:
    """The quick measurement's workflow with two scenes of few steps, without a posterior."""
    nodes = read_workflow(DIGITS)
    nodes["2"]["inputs"]["text"] = "3 1 4 1\n5 9 2 6"
    nodes["4"]["inputs"]["batch_size"] = 2
    del nodes["8"]["inputs"]["laplace"]
    nodes["8"]["inputs"].update({"steps": 3, **sampler})
    return nodes


@pytest.fixture(scope="module")
def executor(host: Host) -> Executor:
    return Executor()


@pytest.fixture
def run() -> Callable[..., Any]:
    """Call something in a thread: this one may already drive a browser's loop."""

    def call(work: Callable[..., Any], *arguments: Any) -> Any:
        with ThreadPoolExecutor(max_workers=1) as pool:
            return pool.submit(work, *arguments).result()

    return call


def measured(executor: Executor, nodes: dict[str, Any], folder: Path, run, count: int) -> Runs:
    runs = Runs(folder, examine(nodes, executor.types_of(nodes)))
    runs.open()
    run(runs.measure, executor, count, lambda _: None)
    return runs


class TestExecutor:
    def test_images_and_maps_are_those_of_the_nodes(self, host: Host, executor, run) -> None:
        nodes = digits()
        seen = run(executor.run, examine(nodes, executor.types_of(nodes)).of_run(11))
        model, vae = host.call("BayesDiffDemoModel", name="digits").outputs
        positive, negative = (
            host.call("BayesDiffDemoPrompt", model=model, text=text).outputs[0]
            for text in (nodes["2"]["inputs"]["text"], "")
        )
        (latent,) = host.call("BayesDiffDemoLatent", model=model, batch_size=2).outputs
        samples, uncertainty, *_ = host.call(
            "UncertainKSampler", model=model, seed=11, steps=3, cfg=1.0, sampler_name="euler",
            scheduler="simple", positive=positive, negative=negative, latent_image=latent,
        ).outputs  # fmt: skip
        (images,) = host.call("VAEDecode", samples=samples, vae=vae).outputs
        assert torch.equal(seen.images, images)
        assert seen.uncertainty.names == uncertainty.names
        for name in uncertainty.names:
            assert torch.equal(seen.uncertainty.signal(name).map, uncertainty.signal(name).map)

    def test_prompts_of_the_hosts_own_encoders_are_found(self, executor) -> None:
        nodes = {
            "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a"}},
            "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "one", "clip": ["1", 1]}},
            "3": {
                "class_type": "CLIPTextEncodeFlux",
                "inputs": {"clip_l": "two", "t5xxl": "two", "guidance": 3.5, "clip": ["1", 1]},
            },
            "4": {
                "class_type": "FluxGuidance",
                "inputs": {"conditioning": ["2", 0], "guidance": 3.5},
            },
            "5": {
                "class_type": "ConditioningCombine",
                "inputs": {"conditioning_1": ["4", 0], "conditioning_2": ["3", 0]},
            },
            "6": {"class_type": "BasicGuider", "inputs": {"conditioning": ["5", 0]}},
            "7": {"class_type": "BayesDiffUncertainSamplerCustom", "inputs": {"guider": ["6", 0]}},
            "8": {"class_type": "VAEDecode", "inputs": {"samples": ["7", 1], "vae": ["1", 2]}},
        }
        workflow = examine(nodes, executor.types_of(nodes))
        assert workflow.texts == (("3", "clip_l"), ("3", "t5xxl"), ("2", "text"))
        assert workflow.prompt == "two, one"

    def test_the_same_run_can_be_taken_twice(self, executor, run) -> None:
        nodes = digits()
        prompt = examine(nodes, executor.types_of(nodes)).of_run(3)
        first, second = run(executor.run, prompt), run(executor.run, prompt)
        assert torch.equal(first.images, second.images)

    def test_what_the_host_refuses_is_named(self, executor, run) -> None:
        nodes = digits(sampler_name="none such")
        prompt = examine(nodes, executor.types_of(nodes)).of_run(0)
        with pytest.raises(CheckpointError, match="refuses the workflow: node 8.*none such"):
            run(executor.run, prompt)

    def test_a_node_that_fails_is_named_with_its_words(self, executor, run) -> None:
        nodes = digits()
        prompt = examine(nodes, executor.types_of(nodes)).of_run(0, "a photograph of a hand")
        with pytest.raises(CheckpointError, match=r"\(BayesDiffDemoPrompt\) failed: '"):
            run(executor.run, prompt)

    def test_a_host_that_is_not_there_is_said(self, monkeypatch, tmp_path) -> None:
        monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
        with pytest.raises(CheckpointError, match="that folder holds no ComfyUI"):
            start_host()
        if ROOT.parent.name != "custom_nodes":
            monkeypatch.delenv("COMFYUI_PATH")
            monkeypatch.setenv("HOME", str(tmp_path))
            with pytest.raises(CheckpointError, match="No ComfyUI was found"):
                start_host()


class TestRuns:
    def test_what_is_kept_is_what_was_seen(self, executor, run, tmp_path) -> None:
        nodes = digits()
        runs = measured(executor, nodes, tmp_path, run, 2)
        images = runs.images()
        assert [image.file for image in images] == [
            f"images/{i:04}-{place}.png" for i in range(2) for place in range(2)
        ]
        seen = run(executor.run, runs.workflow.of_run(1))
        maps = maps_of(seen)
        for place, image in enumerate(images[2:]):
            # A picture is kept with 8 bits.
            picture = seen.images[place]
            torch.testing.assert_close(runs.picture(image), picture, rtol=0, atol=0.5 / 255)
            assert set(image.signals) == set(maps)
            kept = runs.maps(image)
            assert set(kept) == set(maps) - set(BASELINES)
            for name, values in kept.items():
                assert torch.equal(values, maps[name][place])
                score = seen.uncertainty.signal(name).scores[place].item()
                assert image.signals[name]["top10"] == pytest.approx(score)

    def test_a_measurement_that_was_cut_off_ends_as_if_it_had_not_been(
        self, executor, run, tmp_path
    ) -> None:
        nodes = digits()
        whole = measured(executor, nodes, tmp_path / "whole", run, 3)
        measured(executor, nodes, tmp_path / "cut", run, 2)
        lines = tmp_path / "cut" / "runs.jsonl"
        lines.write_text(lines.read_text()[:-20])
        assert measured(executor, nodes, tmp_path / "cut", run, 3).lines == whole.lines

    def test_prompts_take_turns(self, executor, run, tmp_path) -> None:
        nodes = digits()
        prompts = ("1 1 1 1", "2 2 2 2")
        runs = Runs(tmp_path, examine(nodes, executor.types_of(nodes)), 0, prompts)
        runs.open()
        run(runs.measure, executor, 3, lambda _: None)
        assert [line["prompt"] for line in runs.lines] == [*prompts, prompts[0]]
        first, _, third = (
            run(executor.run, runs.workflow.of_run(0, p)) for p in (*prompts, "1 1 1 1")
        )
        assert torch.equal(first.images, third.images)

    def test_a_video_and_images_that_do_not_belong_are_refused(self, executor, run) -> None:
        nodes = digits()
        seen = run(executor.run, examine(nodes, executor.types_of(nodes)).of_run(0))
        with pytest.raises(CheckpointError, match="2 uncertainty maps but 1 decoded images"):
            maps_of(Seen(seen.uncertainty, seen.images[:1]))
        with pytest.raises(CheckpointError, match="the VAE overflowed"):
            maps_of(Seen(seen.uncertainty, seen.images * float("nan")))
        signals = {
            name: type(signal)(signal.map[:, None], signal.unit)
            for name, signal in seen.uncertainty.signals.items()
        }
        with pytest.raises(CheckpointError, match="makes a video"):
            maps_of(Seen(type(seen.uncertainty)(signals), seen.images))


class TestOracles:
    def test_tables_and_sheets_come_of_a_bundled_model(self, executor, run, tmp_path) -> None:
        nodes = digits(steps=8)
        runs = Runs(tmp_path, examine(nodes, executor.types_of(nodes)), 0, random_digits(6, 2))
        runs.open()
        run(runs.measure, executor, 6, lambda _: None)
        shown: list[str] = []
        last = judge("digits", runs, "digits", None, shown.append)
        (figures,) = last["models"].values()
        assert list(figures) == [*runs.images()[0].signals]
        page = (tmp_path / "tables-digits.md").read_text()
        assert page == shown[0] + "\n"
        assert "12 images" in page
        for name in set(figures) - set(BASELINES):
            assert f"| `{name}` |" in page
            sheet = read_picture(tmp_path / "heatmaps-digits" / f"{name}.jpg")
            assert sheet.std() > 0.1, "a picture without any structure"

    def test_without_marks_it_says_what_to_do_and_with_them_it_counts_them(
        self, executor, run, tmp_path
    ) -> None:
        runs = measured(executor, digits(), tmp_path, run, 2)
        shown: list[str] = []
        last = judge("digits", runs, "labels", None, shown.append)
        assert last == {"benchmark": "checkpoint", "models": {}}
        assert "sheet.html" in shown[0] and "labels.csv" in shown[0]
        files = [image.file for image in runs.images()]
        rows = [f"{file},{int(i == 0)}" for i, file in enumerate(files)]
        (tmp_path / "labels.csv").write_text("\n".join(["image,malformed", *rows]))
        judge("digits", runs, "labels", None, shown.append)
        assert "4 images, 1 malformed, truth by labels" in shown[1]

    def test_letters_through_the_hosts_own_loaders(
        self, host: Host, executor, run, tmp_path
    ) -> None:
        bundle = host.module("demo.bundle")
        for folder, source, name in (
            ("diffusion_models", "letters", "checkpoint_letters"),
            ("vae", "letters_vae", "checkpoint_vae"),
        ):
            target = host.base_directory / "models" / folder
            target.mkdir(parents=True, exist_ok=True)
            (target / f"{name}.safetensors").symlink_to(bundle.weights_path(source))
        runs = measured(executor, LETTERS, tmp_path, run, 2)
        first, *_, last = runs.images()
        assert (first.prompt, last.place) == ("B A K E\nF R E T", 1)
        assert runs.picture(first).shape == (128, 128, 3)
        assert not torch.equal(runs.picture(first), runs.picture(runs.images()[2]))
        found = judge("letters", runs, "letters", None, lambda _: None)
        assert set(found["models"]["letters, letters"]) >= {"artifact", "trajectory", *BASELINES}


@pytest.fixture
def tiny_clip(host: Host, tmp_path) -> Any:
    """A CLIP of transformers' with random weights, and its halves as the host holds them."""
    transformers = pytest.importorskip("transformers")
    import comfy.clip_vision
    import comfy.sd
    import comfy.sd1_clip

    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "hidden_act": "quick_gelu",
        "projection_dim": 48,
    }  # fmt: skip
    text = {
        "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 77, "vocab_size": 49408,
        "hidden_act": "quick_gelu", "eos_token_id": 49407, "projection_dim": 48,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=48)
        reference = transformers.CLIPModel(config).eval().half().float()  # as the host stores it
    path = tmp_path / "vision.json"
    path.write_text(json.dumps({**vision, "num_channels": 3, "model_type": "clip_vision_model"}))
    weights = reference.state_dict()
    seeing = comfy.clip_vision.ClipVisionModel(str(path))
    assert seeing.load_sd(dict(weights)).missing_keys == []

    class Target:
        params: dict[str, Any] = {}
        clip = comfy.sd1_clip.SD1ClipModel
        tokenizer = comfy.sd1_clip.SD1Tokenizer

    options = {"clip_l_model_config": text, "model_name": "clip_l"}
    speaking = comfy.sd.CLIP(Target, model_options=options)
    speaking.load_sd(dict(weights))
    return reference, seeing, speaking


class TestClip:
    def test_agreement_is_that_of_transformers(self, tiny_clip) -> None:
        """Whose own order of the two halves, pooling and projections it must match."""
        reference, seeing, speaking = tiny_clip
        images = torch.rand(3, 28, 28, 3, generator=torch.Generator().manual_seed(1))
        images = (images * 255).round() / 255
        found = agreement(seeing, speaking, images, "a hand with (six:1.2) fingers")
        words = [t for t, _ in speaking.tokenize("a hand with six fingers")["l"][0]]
        mean, std = (
            torch.tensor(values)
            for values in (
                [0.48145466, 0.4578275, 0.40821073],
                [0.26862954, 0.26130258, 0.27577711],
            )
        )
        pixels = ((images - mean) / std).movedim(-1, 1)
        with torch.no_grad():
            out = reference(input_ids=torch.tensor([words]), pixel_values=pixels)
        expected = out.logits_per_image[:, 0] / reference.logit_scale.exp()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert found.std() > 1e-4, "all images agree alike, so nothing was compared"

    def test_half_a_model_is_refused(self, host: Host, tmp_path) -> None:
        from safetensors.torch import save_file

        path = tmp_path / "half.safetensors"
        save_file({"text_projection.weight": torch.zeros(2, 2)}, path)
        with pytest.raises(CheckpointError, match="lacks the image encoder's projection"):
            load_clip(path)
        with pytest.raises(CheckpointError, match="There is no file"):
            load_clip(tmp_path / "none.safetensors")


@pytest.mark.slow
def test_the_command_measures_the_digits(host_location, tmp_path) -> None:
    """In a process of its own, where it starts the host itself."""
    words = ["-m", "benchmarks.checkpoint", "--quick", "--runs", "1", "--output", str(tmp_path)]
    ended = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "COMFYUI_PATH": str(host_location.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    last = json.loads(ended.stdout.splitlines()[-1])
    assert last["benchmark"] == "checkpoint"
    (figures,) = last["models"].values()
    assert set(figures) == {"artifact", "trajectory", "contrast", "posterior", *BASELINES}
    (line,) = (tmp_path / "runs.jsonl").read_text().splitlines()
    images = json.loads(line)["images"]
    assert len(images) == 16
    assert min(image["signals"]["posterior"]["top10"] for image in images) > 0
