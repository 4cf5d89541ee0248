import torch
from comfy_api.latest import io

from .host.demo import demo_config
from .types import CATEGORY


class DemoPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BayesDiffDemoPrompt",
            display_name="BayesDiff Demo Prompt",
            category=f"{CATEGORY}/demo",
            description="What a bundled model shall draw; one line an image.",
            inputs=[
                io.Model.Input("model", tooltip="From BayesDiff Demo Model."),
                io.String.Input(
                    "text",
                    default="3 1 4 1",
                    multiline=True,
                    tooltip=(
                        "digits: four digits, row by row, such as 3 1 4 1. emoji: a category. "
                        "Several lines are a batch with one image each. Leave it empty for the "
                        "negative conditioning."
                    ),
                ),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, model, text) -> io.NodeOutput:
        scene = demo_config(model)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        codes = [line_codes(line, scene.class_names, scene.n_labels) for line in lines]
        codes = codes or [[0] * scene.n_labels]
        return io.NodeOutput([[torch.tensor(codes, dtype=torch.float32)[..., None], {}]])


def line_codes(line: str, names: tuple[str, ...], count: int) -> list[int]:
    """1 + label for every word of a line; 0 stands for no label."""
    words = [line] if count == 1 else line.split()
    known = {name.casefold(): place for place, name in enumerate(names)}
    if len(words) != count or not all(word.casefold() in known for word in words):
        raise ValueError(
            f"'{line}' is no prompt of this model. Write {count} of: {', '.join(names)}."
        )
    return [1 + known[word.casefold()] for word in words]
