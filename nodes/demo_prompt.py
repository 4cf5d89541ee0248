import torch
from comfy_api.latest import io

from .host.demo_models import demo_config, labels_conditioning
from .types import CATEGORY


class DemoPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BayesDiffDemoPrompt",
            display_name="BayesDiff Demo Prompt",
            category=f"{CATEGORY}/demo",
            description="What a bundled model should draw; one line per image.",
            inputs=[
                io.Model.Input("model", tooltip="From BayesDiff Demo Model."),
                io.String.Input(
                    "text",
                    default="3 1 4 1",
                    multiline=True,
                    tooltip=(
                        "digits: four digits, row by row, such as 3 1 4 1. emoji: a category. "
                        "letters: four capitals, such as B A K E. Several lines are a batch with "
                        "one image each. Leave it empty for the negative conditioning."
                    ),
                ),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, model, text) -> io.NodeOutput:
        scene = demo_config(model)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        labels = [line_labels(line, scene.class_names, scene.n_labels) for line in lines]
        labels = labels or [[scene.null_label] * scene.n_labels]
        return io.NodeOutput(labels_conditioning(scene, torch.tensor(labels)))


def line_labels(line: str, names: tuple[str, ...], count: int) -> list[int]:
    """The labels that a line of a prompt names.

    Arguments:
        line: Words separated by spaces; a single name where one label is wanted.
        names: Of the classes, in any case of letters.
        count: Number of labels wanted.

    Returns:
        The place of every word among the names.

    Raises:
        ValueError: If there are more or fewer words, or one is no name.
    """
    words = [line] if count == 1 else line.split()
    known = {name.casefold(): place for place, name in enumerate(names)}
    if len(words) != count or not all(word.casefold() in known for word in words):
        raise ValueError(
            f"'{line}' is no prompt of this model. Write {count} of: {', '.join(names)}."
        )
    return [known[word.casefold()] for word in words]
