"""The harness itself: ComfyUI's page opens in a browser and runs what is on it."""

import pytest

from tests.support.workflow import to_prompt

PREVIEW_OF_BLUE = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255},
    },
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}

SAMPLING = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "model.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a cat"}},
    "3": {
        "class_type": "EmptyLatentImage",
        "inputs": {"width": 512, "height": 256, "batch_size": 3},
    },
    "4": {
        "class_type": "KSampler",
        "inputs": {
            **{"model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0]},
            **{"latent_image": ["3", 0], "seed": 7, "steps": 5, "cfg": 3.5},
            **{"sampler_name": "heun", "scheduler": "karras", "denoise": 0.9},
        },
    },
}


@pytest.mark.parametrize("vue_nodes", [False, True], ids=["canvas", "vue"])
def test_page_runs_a_prompt(open_page, vue_nodes):
    page = open_page({"Comfy.VueNodes.Enabled": vue_nodes})
    page.load_prompt(PREVIEW_OF_BLUE)
    page.run()
    page.fit_view()
    previews = page.evaluate("() => Object.values(window.app.nodeOutputs).map(o => o.images)")
    assert [len(images) for images in previews] == [1]


@pytest.mark.parametrize("prompt", [PREVIEW_OF_BLUE, SAMPLING], ids=["preview", "sampling"])
def test_saved_workflows_convert_as_the_page_converts_them(page, prompt):
    page.load_prompt(prompt)
    workflow = page.evaluate("() => window.app.graph.serialize()")
    by_page = {
        node_id: {"class_type": node["class_type"], "inputs": node["inputs"]}
        for node_id, node in page.prompt().items()
    }
    assert to_prompt(workflow, page.server.get("/object_info")) == by_page
    assert {node["class_type"] for node in by_page.values()} == {
        node["class_type"] for node in prompt.values()
    }
