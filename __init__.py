"""ComfyUI extension: where a diffusion sample is unsure of itself, and what to do about it."""

try:
    from comfy_api.latest import ComfyExtension, io
except ImportError as error:
    raise ImportError(
        "BayesDiff needs ComfyUI 0.3.60 or newer. This one cannot load its nodes: update ComfyUI, "
        "or remove BayesDiff from custom_nodes."
    ) from error

from .nodes import NODES
from .nodes.folders import register

WEB_DIRECTORY = "./js"

register()


class BayesDiffExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> BayesDiffExtension:
    return BayesDiffExtension()
