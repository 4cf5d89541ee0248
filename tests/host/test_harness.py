"""The harness itself: the extension loads in the real ComfyUI, imported and live."""

import pytest
import torch

from tests.support.host_location import ROOT
from tests.support.server import ExecutionError, PromptRejectedError

NODE_IDS = {"LaplaceFit", "UncertainKSampler", "UncertaintyHeatmap", "MaskedResample"}

needs_nodes = pytest.mark.skipif(
    not (ROOT / "__init__.py").is_file(), reason="the extension has no nodes yet"
)


def solid_image(width: int, height: int, filename_prefix: str = "solid") -> dict:
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": width, "height": height, "batch_size": 1, "color": 0x336699},
        },
        "2": {
            "class_type": "SaveImage",
            "inputs": {"images": ["1", 0], "filename_prefix": filename_prefix},
        },
    }


@needs_nodes
def test_imported_host_registers_our_nodes(host):
    assert set(host.own_node_classes) >= NODE_IDS, host.load_log


@needs_nodes
def test_live_server_lists_our_nodes(server):
    listed = server.get("/object_info")
    assert set(listed) >= NODE_IDS, server.log_tail(lines=300)
    assert all(listed[node_id]["category"].startswith("BayesDiff") for node_id in NODE_IDS)


def test_call_executes_nodes_of_both_api_generations(host):
    (v1,) = host.call("EmptyLatentImage", width=64, height=32, batch_size=2).outputs
    assert v1["samples"].shape == (2, 4, 4, 8)
    (v3,) = host.call("EmptySD3LatentImage", width=64, height=32, batch_size=2).outputs
    assert v3["samples"].shape == (2, 16, 4, 8)
    assert torch.is_inference(v3["samples"])


def test_imported_host_leaves_the_user_folders_alone(host):
    folder_paths = __import__("folder_paths")
    for kind in ("output", "input", "temp", "user"):
        path = getattr(folder_paths, f"get_{kind}_directory")()
        assert path.startswith(str(host.base_directory))


def test_queue_returns_outputs_and_the_picture(server):
    execution = server.queue(solid_image(48, 32))
    (image,) = execution.outputs["2"]["images"]
    picture = server.view(image)
    assert picture.size == (48, 32)
    assert picture.getpixel((5, 5)) == (0x33, 0x66, 0x99)


def test_queue_reports_rejected_prompts(server):
    prompt = solid_image(48, 32)
    del prompt["1"]["inputs"]["width"]
    with pytest.raises(PromptRejectedError) as rejected:
        server.queue(prompt)
    assert "1" in rejected.value.details["node_errors"]


def test_queue_reports_errors_of_nodes(server):
    prompt = solid_image(48, 32, filename_prefix="../outside/solid")
    with pytest.raises(ExecutionError, match="SaveImage"):
        server.queue(prompt)
    execution = server.queue(prompt, check=False)
    assert execution.status == "error"
    assert execution.error["node_id"] == "2"


def test_queue_can_be_interrupted_from_its_messages(server):
    prompt = solid_image(768, 768)
    prompt["3"] = {
        "class_type": "ImageBlur",
        "inputs": {"image": ["1", 0], "blur_radius": 31, "sigma": 3.0},
    }
    prompt["2"]["inputs"]["images"] = ["3", 0]

    def interrupt(message):
        if message["type"] == "executing" and message["data"]["node"] == "3":
            server.post("/interrupt")

    execution = server.queue(prompt, check=False, on_message=interrupt)
    assert execution.status == "interrupted"
    assert execution.error is None
    with pytest.raises(ExecutionError, match="interrupted"):
        raise ExecutionError(execution)
