"""The viewer through what happens to a node: other tabs, undo, copies, subgraphs, a second run."""

from __future__ import annotations

import pytest

from tests.support.viewer import PROMPT, VIEWER, Viewer, stage_pixels

both = pytest.mark.parametrize("vue", [False, True], ids=["canvas", "vue"])

SEEN = f"""() => {{
    const {{ state, reference }} = {VIEWER};
    const {{ signal, threshold, step, opacity }} = state.settings;
    return {{ signal, threshold, step, opacity, image: state.image, layer: state.layer.name,
        values: reference.values.filename }};
}}"""

BLANK = "() => window.app.extensionManager.command.execute('Comfy.NewBlankWorkflow')"

VIEWERS = """window.app.graph._nodes
    .filter((node) => node.type === "UncertaintyHeatmap")
    .map((node) => node.widgets.find((w) => w.name === "viewer").viewer)"""


def choose(viewer):
    """Changes everything that a workflow keeps, by pointer and keyboard."""
    viewer.root.locator(".bd-tile").last.click()
    viewer.root.get_by_role("button", name="Posterior").click()
    viewer.root.get_by_label("Step", exact=True).fill("2")
    viewer.root.get_by_label("Opacity", exact=True).fill("0.4")
    drag_threshold(viewer, 0.6)


def drag_threshold(viewer, share):
    box = viewer.root.locator(".bd-histogram").bounding_box()
    y = box["y"] + box["height"] / 2
    viewer.tab.mouse.move(box["x"] + 0.9 * box["width"], y)
    viewer.tab.mouse.down()
    viewer.tab.mouse.move(box["x"] + share * box["width"], y, steps=4)
    viewer.tab.mouse.up()
    viewer.tab.wait_for_timeout(300)


def again(page, node_id=10):
    viewer = Viewer(page, node_id)
    viewer.wait_for_content()
    viewer.show()
    return viewer


@both
def test_another_tab_and_back_changes_nothing(run, vue):
    viewer = run(vue)
    page = viewer.page
    choose(viewer)
    seen, pixels = page.evaluate(SEEN), stage_pixels(viewer)
    assert seen["step"] == 3 and seen["opacity"] == 0.4 and seen["threshold"] != 90.0
    page.evaluate(BLANK)
    page.tab.wait_for_function("() => window.app.graph._nodes.length === 0")
    assert page.tab.locator(".bayesdiff").count() == 0
    page.tab.locator(".workflow-tab").nth(-2).click()
    page.tab.wait_for_function("() => window.app.graph._nodes.length > 0")
    viewer = again(page)
    assert page.evaluate(SEEN) == seen
    assert stage_pixels(viewer).tobytes() == pixels.tobytes()


def test_undo_takes_back_a_threshold_and_keeps_the_picture(run):
    viewer = run(vue=True)
    page = viewer.page
    drag_threshold(viewer, 0.6)
    seen = page.evaluate(SEEN)
    page.tab.mouse.click(900, 600)
    for keys, expected in [("Control+z", {**seen, "threshold": 90.0}), ("Control+y", seen)]:
        page.tab.keyboard.press(keys)
        page.tab.wait_for_timeout(600)
        viewer = again(page)
        assert viewer.root.locator(".bd-stage").is_visible()
        assert page.evaluate(SEEN) == expected


def test_a_run_that_ends_in_another_tab_is_there_on_return(run):
    viewer = run()
    page = viewer.page
    before = page.evaluate(SEEN)["values"]
    page.evaluate("() => { heatmap.widgets.find((w) => w.name === 'threshold').value = 50; }")
    page.evaluate("() => window.app.queuePrompt(0, 1)")
    page.evaluate(BLANK)
    page.tab.wait_for_function("() => window.app.graph._nodes.length === 0")
    page.tab.wait_for_function(
        """(before) => {
            const { openWorkflows } = window.app.extensionManager.workflow;
            return openWorkflows.some(({ changeTracker }) => {
                const run = changeTracker?.nodeOutputs?.["10"]?.bayesdiff?.at(-1);
                return run && run.values.filename !== before;
            });
        }""",
        arg=before,
    )
    page.tab.locator(".workflow-tab").nth(-2).click()
    page.tab.wait_for_function("() => window.app.graph._nodes.length > 0")
    again(page)
    page.tab.wait_for_timeout(500)
    assert page.evaluate(SEEN)["values"] != before


def test_in_a_subgraph_it_shows_the_run(open_page):
    page = open_page({"Comfy.VueNodes.Enabled": True})
    page.load_prompt(PROMPT)
    page.evaluate(
        """() => {
            const { graph } = window.app;
            const nodes = ["10", "9"].map((id) => graph.getNodeById(id));
            window.holder = graph.convertToSubgraph(new Set(nodes)).node;
        }"""
    )
    page.run()
    node_id = page.evaluate(
        """() => {
            const { holder, app: { canvas } } = window;
            canvas.openSubgraph(holder.subgraph, holder);
            const { nodes } = holder.subgraph;
            nodes.forEach((node, index) => (node.pos = [500 * index, 0]));
            return nodes.find((node) => node.type === "UncertaintyHeatmap").id;
        }"""
    )
    page.tab.wait_for_timeout(500)
    viewer = again(page, node_id)
    viewer.point_at(128, 128)
    assert viewer.root.locator(".bd-note").inner_text().startswith("pixel 12")
    seen = page.evaluate(SEEN)
    page.evaluate(BLANK)
    page.tab.wait_for_function("() => window.app.graph._nodes.length === 0")
    page.tab.locator(".workflow-tab").nth(-2).click()
    page.tab.wait_for_timeout(1500)
    viewer = again(page, node_id)
    assert viewer.root.locator(".bd-stage").is_visible()
    assert page.evaluate(SEEN)["values"] == seen["values"]
    # The page's own words on entering a subgraph.
    page.errors = [
        error for error in page.errors if "for graph that was never set up" not in error
    ]


def test_copies_are_viewers_of_their_own(run):
    viewer = run()
    page = viewer.page
    page.evaluate("() => window.app.canvas.selectNode(window.heatmap)")
    page.tab.locator("#graph-canvas").focus()
    page.tab.keyboard.press("Control+c")
    page.tab.mouse.move(900, 500)
    page.tab.keyboard.press("Control+Shift+v")
    page.tab.wait_for_function(f"() => {VIEWERS}.length === 2")
    page.evaluate(f"() => {VIEWERS}[1].state.set({{ threshold: 80 }})")
    page.run()
    page.tab.wait_for_timeout(500)
    names = page.evaluate(f"() => {VIEWERS}.map((v) => v.reference.values.filename)")
    assert len(set(names)) == 2
    page.evaluate(f"() => {VIEWERS}[1].state.set({{ signal: 'posterior' }})")
    signals = page.evaluate(f"() => {VIEWERS}.map((v) => v.state.settings.signal)")
    assert signals == ["artifact", "posterior"]


def test_the_last_of_several_runs_is_shown_and_a_cancelled_one_changes_nothing(run):
    viewer = run()
    page = viewer.page
    page.evaluate(
        """async () => {
            const widget = window.heatmap.widgets.find((w) => w.name === "grow");
            const ended = (name) => new Promise((resolve) =>
                window.app.api.addEventListener(name, resolve, { once: true }));
            widget.value = 1;
            await window.app.queuePrompt(0, 1);
            widget.value = 3;
            await window.app.queuePrompt(0, 1);
            await ended("execution_success");
            await ended("execution_success");
        }"""
    )
    page.tab.wait_for_timeout(500)
    seen = page.evaluate(SEEN)
    assert seen["values"] == viewer.output["bayesdiff"][-1]["values"]["filename"]
    page.evaluate(
        """async () => {
            const sampler = window.app.graph.getNodeById(7);
            const widget = (name) => sampler.widgets.find((w) => w.name === name);
            widget("steps").value = 5000;
            const { api } = window.app;
            api.addEventListener("progress", () => api.interrupt(null), { once: true });
            const ended = new Promise((resolve) =>
                api.addEventListener("execution_interrupted", resolve, { once: true }));
            await window.app.queuePrompt(0, 1);
            await ended;
        }"""
    )
    page.tab.wait_for_timeout(500)
    assert page.evaluate(SEEN) == seen


def test_a_removed_viewer_hears_nothing_more(run):
    viewer = run()
    page = viewer.page
    viewer.root.locator(".bd-stage").focus()
    page.tab.keyboard.press("f")
    page.tab.wait_for_timeout(300)
    page.evaluate(
        f"""() => {{
            window.gone = {VIEWER};
            window.told = 0;
            window.gone.state.addEventListener("probe", () => window.told++);
            window.app.graph.remove(window.heatmap);
        }}"""
    )
    page.tab.wait_for_timeout(300)
    assert page.tab.locator("dialog.bayesdiff-dialog, .bayesdiff").count() == 0
    page.evaluate(
        """() => {
            const stage = window.gone.element.querySelector(".bd-stage");
            document.body.append(window.gone.element);
            const place = { clientX: 300, clientY: 300, bubbles: true };
            stage.dispatchEvent(new PointerEvent("pointermove", place));
            stage.dispatchEvent(new KeyboardEvent("keydown", { key: "f", bubbles: true }));
            window.gone.element.remove();
        }"""
    )
    assert page.evaluate("() => window.told") == 0
    assert page.tab.locator("dialog.bayesdiff-dialog").count() == 0
