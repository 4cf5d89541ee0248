"""The example workflows, as the page loads and runs them."""

import json

import pytest

from tests.support.host_location import ROOT

FOLDER = ROOT / "example_workflows"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.json"))

ALERTS = """() => [...document.querySelectorAll(".p-toast-message")]
    .map((toast) => toast.textContent)"""

PAYLOADS = """() => window.app.graph._nodes
    .filter((node) => node.type === "UncertaintyHeatmap")
    .map((node) => node.widgets.find((w) => w.name === "viewer").viewer.state.payload?.batch)"""


OVERLAPS = """() => {
    const boxes = window.app.graph._nodes.map((node) => [node.title, ...node.getBounding()]);
    const covers = ([, x, y, w, h], [, left, top, width, height]) =>
        x < left + width && left < x + w && y < top + height && top < y + h;
    return boxes.flatMap((one, i) =>
        boxes.slice(i + 1).filter((two) => covers(one, two)).map((two) => [one[0], two[0]]));
}"""

THUMBNAIL = """(image) => image.complete && image.naturalWidth >= 256
    && getComputedStyle(image).visibility === "visible"
    && Number(getComputedStyle(image).opacity) === 1"""

LOADED = """(types) => {
    const loaded = window.app.graph._nodes.map((node) => node.type).sort();
    return JSON.stringify(loaded) === JSON.stringify(types);
}"""


def load_from_template_browser(page, name):
    """Opens Templates, this extension's category, and clicks the card of an example."""
    tab = page.tab
    tab.get_by_text("Templates", exact=True).first.click()
    tab.get_by_text("comfyui-bayesdiff", exact=True).click()
    card = tab.get_by_test_id(f"template-workflow-{name}")
    card.scroll_into_view_if_needed()
    picture = card.locator("img").first
    tab.wait_for_function(THUMBNAIL, arg=picture.element_handle())
    picture.click()
    workflow = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    types = sorted(node["type"] for node in workflow["nodes"])
    tab.wait_for_function(LOADED, arg=types)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_it_runs_from_the_template_browser_and_fills_its_viewers(open_page, name):
    page = open_page({})
    load_from_template_browser(page, name)
    assert not page.evaluate(ALERTS), "the page does not take the workflow as it is"
    assert page.evaluate(OVERLAPS) == [], "nodes that cover one another"
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
