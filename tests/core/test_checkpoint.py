"""Measuring a checkpoint, as far as no host is needed: workflows, marks, figures."""

import copy
import json
import re

import pytest
import torch

from bayesdiff_core.ranking import pool
from benchmarks.checkpoint import CheckpointError
from benchmarks.checkpoint.__main__ import main
from benchmarks.checkpoint.clip import clip_truth
from benchmarks.checkpoint.figures import figures_of, markdown, plain
from benchmarks.checkpoint.labelling_page import write_labelling_page
from benchmarks.checkpoint.runs import Image, Runs, score
from benchmarks.checkpoint.truth import Verdict, inside, labels_of, read_labels
from benchmarks.checkpoint.workflow import TAP_ID, NodeType, examine, read_workflow
from benchmarks.metrics import auroc
from tests.support.host_location import ROOT

TYPES = {
    "CheckpointLoaderSimple": NodeType(("MODEL", "CLIP", "VAE"), ()),
    "CLIPTextEncode": NodeType(("CONDITIONING",), ("text",)),
    "CLIPTextEncodeSDXL": NodeType(("CONDITIONING",), ("text_g", "text_l")),
    "PrimitiveStringMultiline": NodeType(("STRING",), ()),
    "ControlNetApplyAdvanced": NodeType(("CONDITIONING", "CONDITIONING"), ()),
    "EmptyLatentImage": NodeType(("LATENT",), ()),
    "UncertainKSampler": NodeType(("LATENT", "UNCERTAINTY", "FLOAT", "STRING"), ()),
    "BayesDiffUncertainKSamplerAdvanced": NodeType(("LATENT", "UNCERTAINTY"), ()),
    "BayesDiffUncertainSamplerCustom": NodeType(("LATENT", "LATENT", "UNCERTAINTY"), ()),
    "BasicGuider": NodeType(("GUIDER",), ()),
    "DisableNoise": NodeType(("NOISE",), ()),
    "LaplaceFit": NodeType(("LAPLACE",), ()),
    "MaskedResample": NodeType(("LATENT", "UNCERTAINTY"), ()),
    "VAEDecode": NodeType(("IMAGE",), ()),
    "PreviewImage": NodeType((), ()),
}

SD15 = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a hand", "clip": ["1", 1]}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["1", 1]}},
    "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "batch_size": 2}},
    "5": {
        "class_type": "UncertainKSampler",
        "inputs": {
            "model": ["1", 0], "seed": 7, "positive": ["2", 0], "negative": ["3", 0],
            "latent_image": ["4", 0],
        },
    },
    "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
    "7": {"class_type": "PreviewImage", "inputs": {"images": ["6", 0]}},
}  # fmt: skip


def sd15(**changes: dict) -> dict:
    """The workflow above with some nodes replaced or added."""
    return {**copy.deepcopy(SD15), **changes}


def custom() -> dict:
    """The workflow above as one for custom sampling, guided by one conditioning."""
    sampler = {"guider": ["8", 0], "noise": ["9", 0], "latent_image": ["4", 0]}
    return sd15(
        **{
            "5": {"class_type": "BayesDiffUncertainSamplerCustom", "inputs": sampler},
            "8": {
                "class_type": "BasicGuider",
                "inputs": {"model": ["1", 0], "conditioning": ["2", 0]},
            },
            "9": {"class_type": "RandomNoise", "inputs": {"noise_seed": 3}},
        }
    )


KNOWN = {**TYPES, "RandomNoise": NodeType(("NOISE",), ())}


class TestWorkflow:
    def test_a_run_has_its_seed_and_nothing_beside_what_is_measured(self):
        nodes = sd15()
        run = examine(nodes, KNOWN).of_run(42)
        assert set(run) == {"1", "2", "3", "4", "5", "6", TAP_ID}
        assert run["5"]["inputs"]["seed"] == 42
        assert run[TAP_ID]["inputs"] == {"uncertainty": ["5", 1], "images": ["6", 0]}
        assert nodes == SD15, "the workflow itself stays as it was"

    def test_only_the_positive_prompt_is_replaced(self):
        workflow = examine(sd15(), KNOWN)
        run = workflow.of_run(0, "two hands")
        assert workflow.prompt == "a hand"
        assert run[run["5"]["inputs"]["positive"][0]]["inputs"]["text"] == "two hands"
        assert run[run["5"]["inputs"]["negative"][0]]["inputs"]["text"] == "blurry"

    def test_what_else_takes_the_prompt_keeps_its_own(self):
        """So that the host does not fit the posterior anew for every prompt."""
        fit = {"model": ["1", 0], "conditioning": ["2", 0], "latents": ["4", 0]}
        nodes = sd15(**{"8": {"class_type": "LaplaceFit", "inputs": fit}})
        nodes["5"]["inputs"]["laplace"] = ["8", 0]
        run = examine(nodes, KNOWN).of_run(0, "two hands")
        assert run[run["8"]["inputs"]["conditioning"][0]] == SD15["2"]

    def test_custom_sampling_gets_its_noise_and_its_prompt_through_the_guider(self):
        workflow = examine(custom(), KNOWN)
        run = workflow.of_run(42)
        noise = run[run["5"]["inputs"]["noise"][0]]
        assert noise == {"class_type": "RandomNoise", "inputs": {"noise_seed": 42}}
        assert workflow.prompt == "a hand"
        assert run[TAP_ID]["inputs"]["uncertainty"] == ["5", 2]

    def test_the_prompt_is_found_behind_a_control_net_and_in_a_node_of_its_own(self):
        control = {"positive": ["2", 0], "negative": ["3", 0]}
        nodes = sd15(
            **{
                "2": {
                    "class_type": "CLIPTextEncodeSDXL",
                    "inputs": {"text_g": ["8", 0], "text_l": ["8", 0]},
                },
                "8": {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "a hand"}},
                "9": {"class_type": "ControlNetApplyAdvanced", "inputs": control},
            }
        )
        nodes["5"]["inputs"].update(positive=["9", 0], negative=["9", 1])
        workflow = examine(nodes, KNOWN)
        assert workflow.prompt == "a hand"
        run = workflow.of_run(0, "two hands")
        applied = run[run["5"]["inputs"]["positive"][0]]
        inputs = run[applied["inputs"]["positive"][0]]["inputs"]
        assert inputs == {"text_g": "two hands", "text_l": "two hands"}
        assert run["5"]["inputs"]["negative"] == ["9", 1]

    def test_the_image_is_that_of_the_sampler_not_of_what_repairs_it(self):
        nodes = sd15(
            **{
                "0": {"class_type": "VAEDecode", "inputs": {"samples": ["8", 0]}},
                "8": {"class_type": "MaskedResample", "inputs": {"latent": ["5", 0]}},
            }
        )
        assert examine(nodes, KNOWN).images == ("6", 0)

    def test_one_of_several_samplers_is_chosen_by_its_node(self):
        second = copy.deepcopy(SD15["5"])
        decode = {"class_type": "VAEDecode", "inputs": {"samples": ["8", 0], "vae": ["1", 2]}}
        nodes = sd15(**{"8": second, "9": decode})
        with pytest.raises(CheckpointError, match="2 uncertain samplers: nodes 5, 8"):
            examine(nodes, KNOWN)
        assert examine(nodes, KNOWN, "8").images == ("9", 0)
        with pytest.raises(CheckpointError, match="Node 4 is no uncertain sampler"):
            examine(nodes, KNOWN, "4")

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"5": {"class_type": "KSampler", "inputs": {}}}, "no uncertain sampler"),
            ({"6": {"class_type": "PreviewImage", "inputs": {}}}, "connect a VAEDecode"),
            ({"4": {"class_type": "Elsewhere", "inputs": {}}}, "no node type Elsewhere"),
        ],
    )
    def test_what_is_missing_is_named(self, change, sentence):
        with pytest.raises(CheckpointError, match=sentence):
            examine(sd15(**change), KNOWN)

    def test_a_sampler_without_noise_is_refused(self):
        nodes = sd15()
        nodes["5"]["class_type"] = "BayesDiffUncertainKSamplerAdvanced"
        nodes["5"]["inputs"]["add_noise"] = "disable"
        with pytest.raises(CheckpointError, match="every seed would give the same image"):
            examine(nodes, KNOWN)
        nodes = custom()
        nodes["9"] = {"class_type": "DisableNoise", "inputs": {}}
        with pytest.raises(CheckpointError, match="every seed would give the same image"):
            examine(nodes, KNOWN)

    def test_a_workflow_without_a_prompt_is_told_where_one_is_needed(self, tmp_path):
        nodes = sd15()
        del nodes["5"]["inputs"]["positive"]
        workflow = examine(nodes, KNOWN)
        assert workflow.prompt == ""
        runs = Runs(tmp_path, workflow)
        with pytest.raises(CheckpointError, match="The prompt is not known"):
            clip_truth(tmp_path, runs, [image(0, 0.0)])
        with pytest.raises(CheckpointError, match="list of prompts has no single place"):
            workflow.of_run(0, "a hand")


class TestFiles:
    def test_the_form_of_the_page_is_refused_with_the_way_to_the_right_one(self):
        page = ROOT / "example_workflows" / "first_heatmap.json"
        with pytest.raises(CheckpointError, match=re.escape("Workflow, Export (API)")):
            read_workflow(page)

    @pytest.mark.parametrize("text", ["[]", "{}", '{"1": {"class_type": "A"}}', '{"1": 2}', "x"])
    def test_other_files_are_refused(self, tmp_path, text):
        path = tmp_path / "file.json"
        path.write_text(text)
        with pytest.raises(CheckpointError, match=re.escape("Export (API)")):
            read_workflow(path)

    def test_a_loose_end_is_named(self, tmp_path):
        path = tmp_path / "file.json"
        path.write_text(json.dumps({name: SD15[name] for name in SD15 if name != "1"}))
        with pytest.raises(CheckpointError, match="node 2 is connected to node 1, which"):
            read_workflow(path)

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--workflow", "nowhere.json"], "There is no file nowhere.json"),
            (["--quick", "--prompts", "nowhere.txt"], "There is no file nowhere.txt"),
        ],
    )
    def test_the_command_says_it_in_one_sentence(self, monkeypatch, words, sentence):
        monkeypatch.setattr("sys.argv", ["checkpoint", *words])
        with pytest.raises(SystemExit, match=f"error: {sentence}"):
            main()


def image(number: int, signal: float, peak=(0.5, 0.5), prompt: str = "") -> Image:
    scores = {"mean": -signal, "top10": signal, "peak": list(peak)}
    return Image(f"images/{number:04}-0.png", number, 0, 1, prompt, {"artifact": scores})


class TestScores:
    def test_a_score_is_the_products_own(self):
        maps = torch.randn(3, 8, 12, generator=torch.Generator().manual_seed(0))
        found = score(maps)
        assert [row["top10"] for row in found] == pytest.approx(pool(maps, "top10").tolist())
        assert [row["mean"] for row in found] == pytest.approx(
            maps.mean((1, 2)).tolist(), abs=1e-6
        )

    def test_the_peak_is_the_centre_of_the_highest_pixel(self):
        maps = torch.zeros(1, 4, 8)
        maps[0, 1, 6] = 1
        assert score(maps)[0]["peak"] == [6.5 / 8, 1.5 / 4]

    def test_a_run_that_diverged_is_named(self):
        with pytest.raises(CheckpointError, match="diverged"):
            score(torch.full((1, 4, 4), float("nan")))


class TestFigures:
    def test_a_score_that_knows_the_truth_is_perfect_and_its_negative_the_reverse(self):
        images = [image(i, float(i)) for i in range(100)]
        truth = {i.file: Verdict(i.run >= 90) for i in images}
        row = figures_of(images, truth).signals["artifact"]
        assert row["auroc_top10"].mean == 1
        assert row["auroc"].mean == 0
        assert row["kept_malformed"].mean == 0
        assert "pointing" not in row

    def test_filtering_leaves_what_it_cannot_drop(self):
        images = [image(i, float(i)) for i in range(100)]
        truth = {i.file: Verdict(i.run >= 70) for i in images}
        found = figures_of(images, truth)
        # 17 of 30 malformed ones are dropped, 13 stay among 83.
        assert found.kept == 83
        assert found.signals["artifact"]["kept_malformed"].mean == pytest.approx(13 / 83)
        assert found.best == pytest.approx(13 / 83)
        assert abs(found.at_random - 0.3) < 4 * found.deviation

    def test_figures_are_those_of_the_judged_images_alone(self):
        generator = torch.Generator().manual_seed(0)
        values = torch.randn(60, generator=generator)
        bad = torch.rand(60, generator=generator) < 0.4
        images = [image(i, value) for i, value in enumerate(values.tolist())]
        truth = {i.file: Verdict(bool(bad[i.run])) for i in images[:40]}
        found = figures_of(images, truth)
        assert (found.images, found.malformed) == (40, int(bad[:40].sum()))
        expected = auroc(values[:40], bad[:40])
        assert found.signals["artifact"]["auroc_top10"].mean == pytest.approx(expected)

    def test_pointing_counts_peaks_in_boxes(self):
        boxes = ((0.0, 0.0, 0.5, 0.5), (0.25, 0.0, 0.5, 1.0))
        peaks = [(0.1, 0.1), (0.3, 0.9), (0.9, 0.9), (0.1, 0.9)]
        images = [image(i, 0.0, peak) for i, peak in enumerate(peaks)] + [image(4, 0.0)]
        truth = {i.file: Verdict(i.run < 4, boxes if i.run < 4 else ()) for i in images}
        found = figures_of(images, truth)
        assert found.signals["artifact"]["pointing"].mean == 0.5
        assert found.chance == pytest.approx(0.25 + 0.25 * 0.5, abs=0.01)

    def test_nothing_to_tell_apart_is_said_and_is_no_number(self):
        images = [image(i, float(i)) for i in range(10)]
        found = figures_of(images, {i.file: Verdict(False) for i in images})
        page = markdown("a", "labels", {"evaluations": 20}, found)
        assert "None of the images is malformed" in page
        line = json.dumps(plain(found), allow_nan=False)
        assert json.loads(line)["artifact"]["auroc"] is None


class TestMarks:
    def write(self, tmp_path, text: str):
        path = tmp_path / "labels.csv"
        path.write_text(text)
        return path

    def test_marks_and_boxes_are_read(self, tmp_path):
        images = [image(i, 0.0) for i in range(3)]
        path = self.write(
            tmp_path,
            "image,malformed,boxes\n"
            "images/0000-0.png,1,0.1 0.2 0.4 0.5; 0.5 0.5 1 1\n"
            "images/0001-0.png,0,\n",
        )
        assert read_labels(path, images) == {
            "images/0000-0.png": Verdict(True, ((0.1, 0.2, 0.4, 0.5), (0.5, 0.5, 1.0, 1.0))),
            "images/0001-0.png": Verdict(False),
        }

    def test_a_table_without_boxes_will_do(self, tmp_path):
        path = self.write(tmp_path, "image,malformed\nimages/0000-0.png,1\n")
        assert read_labels(path, [image(0, 0.0)]) == {"images/0000-0.png": Verdict(True)}

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("file,bad\na,1\n", "needs the columns image and malformed"),
            ("image,malformed\nb.png,1\n", "line 2: 'b.png' is no image of this folder"),
            ("image,malformed\nimages/0000-0.png,yes\n", "malformed is 0 or 1, not 'yes'"),
            ("image,malformed,boxes\nimages/0000-0.png,1,0.1 0.2\n", "'0.1 0.2' is no box"),
        ],
    )
    def test_mistakes_are_named_with_their_line(self, tmp_path, text, sentence):
        with pytest.raises(CheckpointError, match=sentence):
            read_labels(self.write(tmp_path, text), [image(0, 0.0)])

    def test_the_page_shows_every_image_without_its_scores_and_not_in_order(self, tmp_path):
        images = [image(i, 100.0 + i, prompt="</script><b>") for i in range(50)]
        write_labelling_page(tmp_path / "sheet.html", images, "key")
        page = (tmp_path / "sheet.html").read_text()
        found = re.findall(r"images/\d+-0\.png", page)
        assert sorted(found) == [i.file for i in images]
        assert found != sorted(found)
        assert "top10" not in page
        assert page.count("</script>") == 1


def test_inside_takes_any_of_the_boxes():
    boxes = ((0.0, 0.0, 0.2, 0.2), (0.5, 0.5, 0.9, 0.9))
    assert inside((0.6, 0.8), boxes)
    assert not inside((0.3, 0.3), boxes)


class TestBundledPrompts:
    def test_lines_go_to_the_places_of_the_batch(self):
        lines = "3 1 4 1\n\n5 9 2 6\n"
        places = [Image("", 0, place, 2, lines, {}) for place in range(2)]
        assert [labels_of("digits", i) for i in places] == [[3, 1, 4, 1], [5, 9, 2, 6]]
        assert labels_of("letters", Image("", 0, 3, 4, "b A k E", {})) == labels_of(
            "letters", Image("", 0, 0, 1, "B A K E", {})
        )

    def test_a_prompt_of_another_model_is_refused(self):
        with pytest.raises(CheckpointError, match="judge by labels or clip"):
            labels_of("digits", Image("", 0, 0, 1, "a photograph of a hand", {}))


class TestFolder:
    def test_a_folder_takes_the_runs_of_one_setting_only(self, tmp_path):
        workflow = examine(sd15(), KNOWN)
        Runs(tmp_path, workflow).open()
        Runs(tmp_path, workflow).open()
        with pytest.raises(CheckpointError, match="another workflow, seed or list of prompts"):
            Runs(tmp_path, workflow, seed=1).open()

    def test_a_line_that_was_cut_off_does_not_count(self, tmp_path):
        runs = Runs(tmp_path, examine(sd15(), KNOWN))
        runs.open()
        lines = [{"run": i, "prompt": "", "images": []} for i in range(2)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "runs.jsonl").write_text(text[:-9])
        assert runs.lines == lines[:1]
