"""ComfyUI extension: where a diffusion sample is unsure of itself, and what to do about it."""

from comfy_api.latest import ComfyExtension, io

from .nodes import NODES
from .nodes.folders import register

WEB_DIRECTORY = "./js"

register()


class BayesDiffExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> BayesDiffExtension:
    return BayesDiffExtension()
