"""The fixture `run`: the page with the viewer on it, after a run."""

from __future__ import annotations

import copy

import pytest

from tests.support.viewer import PROMPT, run_in


@pytest.fixture
def run(open_page):
    """Opens the page, runs the prompt and brings the viewer into view."""

    def run_prompt(vue=False, settings=None, changes=None):
        page = open_page({"Comfy.VueNodes.Enabled": vue, **(settings or {})})
        prompt = copy.deepcopy(PROMPT)
        prompt["10"]["inputs"].update(changes or {})
        return run_in(page, prompt)

    return run_prompt
