"""What people read: every node has its help page, every input its tooltip and its translations."""

import json
import re

import pytest

from tests.support.host_location import ROOT

DOCS = ROOT / "js" / "docs"
EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))


def inputs_of(node_class):
    kinds = node_class.INPUT_TYPES()
    return {
        name: (specification[1] if len(specification) > 1 else {})
        for section in ("required", "optional")
        for name, specification in kinds.get(section, {}).items()
    }


def test_every_node_has_a_help_page_with_a_picture(host):
    for node_id in host.own_node_classes:
        text = (DOCS / f"{node_id}.md").read_text(encoding="utf-8")
        pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
        assert pictures, node_id
        assert all((DOCS / picture).is_file() for picture in pictures), node_id
        for heading in ("## In", "## Out", "## Reading", "## Recipe"):
            assert heading in text, (node_id, heading)


def test_every_input_has_a_tooltip(host):
    for node_id, node_class in host.own_node_classes.items():
        bare = [
            name for name, options in inputs_of(node_class).items() if not options.get("tooltip")
        ]
        assert bare == [], node_id


def test_every_input_is_named_in_the_help_page(host):
    own = {
        *("LaplaceFit", "UncertaintyHeatmap", "MaskedResample", "BayesDiffUncertaintyPlot"),
        *("BayesDiffRank", "BayesDiffContrast", "BayesDiffDiversity"),
    }
    for node_id in own:
        text = (DOCS / f"{node_id}.md").read_text(encoding="utf-8")
        missing = [n for n in inputs_of(host.own_node_classes[node_id]) if f"**{n}**" not in text]
        assert missing == [], node_id


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_every_input_and_output_is_translated(host, language):
    path = ROOT / "locales" / language / "nodeDefs.json"
    translations = json.loads(path.read_text(encoding="utf-8"))
    for node_id, node_class in host.own_node_classes.items():
        entry = translations[node_id]
        assert entry["display_name"]
        assert entry["description"]
        for name in inputs_of(node_class):
            assert entry["inputs"][name]["name"], (node_id, name)
            assert entry["inputs"][name]["tooltip"], (node_id, name)
        for place in range(len(node_class.RETURN_TYPES)):
            assert entry["outputs"][str(place)]["name"], (node_id, place)
    assert set(translations) == set(host.own_node_classes)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_has_a_thumbnail_and_says_what_to_do(path):
    assert path.with_suffix(".jpg").is_file()
    workflow = json.loads(path.read_text(encoding="utf-8"))
    notes = [n["widgets_values"][0] for n in workflow["nodes"] if n["type"] == "MarkdownNote"]
    assert any("checkpoint of yours" in note or "Flux" in note for note in notes)
