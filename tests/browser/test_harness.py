"""The harness itself: ComfyUI's page opens in a browser and runs a prompt."""

import pytest


@pytest.mark.parametrize("vue_nodes", [False, True], ids=["canvas", "vue"])
def test_page_runs_a_prompt(open_page, vue_nodes):
    page = open_page({"Comfy.VueNodes.Enabled": vue_nodes})
    assert page.evaluate("() => Boolean(window.app.graph)")
    page.load_prompt(
        {
            "1": {
                "class_type": "EmptyImage",
                "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255},
            },
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        }
    )
    page.run()
    assert page.prompt()["2"]["class_type"] == "PreviewImage"
    assert page.errors == []
