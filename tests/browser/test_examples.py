"""The example workflows, as the page loads and runs them."""

import json

import pytest

from tests.support.host_location import ROOT

EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))

ALERTS = """() => [...document.querySelectorAll(".p-toast-message")]
    .map((toast) => toast.textContent)"""

PAYLOADS = """() => window.app.graph._nodes
    .filter((node) => node.type === "UncertaintyHeatmap")
    .map((node) => node.widgets.find((w) => w.name === "viewer").viewer.state.payload?.batch)"""


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs_on_the_bundled_models_and_fills_its_viewers(open_page, path):
    page = open_page({})
    page.load_workflow(json.loads(path.read_text(encoding="utf-8")))
    assert not page.evaluate(ALERTS), "the page does not take the workflow as it is"
    page.run(timeout=600)
    page.tab.wait_for_timeout(1500)
    page.fit_view()
    batches = page.evaluate(PAYLOADS)
    assert batches
    assert all(batch >= 1 for batch in batches)


@pytest.mark.parametrize(
    ("locale", "title", "word"),
    [("zh", "不确定性热图", "瑕疵"), ("ja", "不確かさヒートマップ", "破綻")],
)
def test_the_page_speaks_the_users_language(open_page, locale, title, word):
    page = open_page({"Comfy.Locale": locale})
    page.tab.wait_for_timeout(1500)
    texts = page.evaluate(
        """() => {
            const node = window.LiteGraph.createNode("UncertaintyHeatmap");
            window.app.graph.add(node);
            const viewer = node.widgets.find((w) => w.name === "viewer");
            return [node.title, viewer.element.textContent];
        }"""
    )
    page.server.set_setting("Comfy.Locale", "en")
    assert texts[0] == title
    assert word in texts[1]


def test_the_blueprint_is_offered_and_whole(open_page):
    page = open_page({})
    offered = page.server.get("/global_subgraphs")
    assert "Sample, look, repair" in {entry["name"] for entry in offered.values()}
    blueprint = ROOT / "subgraphs" / "Sample, look, repair.json"
    page.load_workflow(json.loads(blueprint.read_text(encoding="utf-8")))
    inner = page.evaluate(
        """() => window.app.graph._nodes[0].subgraph.nodes
            .map((node) => [node.type, node.has_errors])"""
    )
    assert sorted(kind for kind, _ in inner) == [
        *("MaskedResample", "UncertainKSampler", "UncertaintyHeatmap", "VAEDecode", "VAEDecode")
    ]
    assert not any(errors for _, errors in inner)
