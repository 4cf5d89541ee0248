"""The example workflows run in a live server, as a stranger would run them."""

import json

import numpy as np
import pytest

from tests.support.host_location import ROOT
from tests.support.workflow import to_prompt

WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))

pytestmark = pytest.mark.skipif(
    not (ROOT / "demo" / "models" / "digits.safetensors").is_file(),
    reason="the bundled models are not trained yet",
)


@pytest.mark.slow
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_runs_in_a_real_server(server, path):
    prompt = to_prompt(json.loads(path.read_text(encoding="utf-8")), server.get("/object_info"))
    execution = server.queue(prompt)
    assert execution.status == "success"
    shown = [
        image
        for output in execution.outputs.values()
        # The viewer of a heatmap brings its pictures under a key of its own.
        for source in (output, *output.get("bayesdiff", ()))
        for image in source.get("images", ())
    ]
    pictures = [server.view(image) for image in shown]
    assert pictures
    for picture in pictures:
        values = np.asarray(picture.convert("RGB"), dtype=float)
        assert min(picture.size) >= 256
        assert values.std() > 10, "a picture without any structure"


def test_first_workflow_reports_progress_and_previews(server):
    path = ROOT / "example_workflows" / "first_heatmap.json"
    prompt = to_prompt(json.loads(path.read_text(encoding="utf-8")), server.get("/object_info"))
    (node_id,) = (i for i, node in prompt.items() if node["class_type"] == "UncertainKSampler")
    prompt[node_id]["inputs"].update(seed=123, steps=9)
    execution = server.queue(prompt)
    bars = execution.progress(node_id)
    assert bars[:9] == [(i + 1, 9) for i in range(9)]
    # What comes after the image has a bar of its own, to its end.
    after = bars[9:]
    assert after == [(i + 1, len(after)) for i in range(len(after))] and len(after) > 6
    report = next(
        output["text"][0] for output in execution.outputs.values() if "image 1" in str(output)
    )
    assert "posterior" in report and "contrast" in report and "image 4" in report
