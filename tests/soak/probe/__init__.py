"""Custom nodes for ComfyUI by which the soak sees into the server; no part of the extension.

`SoakWitness` passes a model on and notes how it looked, `SoakDigest` hashes what it gets, and
GET /soak/state tells which models look different now, which of the host's functions were
replaced, and which objects of the extension are alive.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web
from comfy_api.latest import ComfyExtension, io
from server import PromptServer

from .digest import digest
from .traces import Traces, trimmed_mb

TRACES = Traces()


class Witness(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SoakWitness",
            category="soak",
            # Another nonce: whatever follows is computed anew.
            inputs=[io.Model.Input("model"), io.Int.Input("nonce", min=0, max=1 << 62)],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, nonce: int) -> io.NodeOutput:
        TRACES.watch(model)
        return io.NodeOutput(model)


class Digest(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SoakDigest",
            category="soak",
            is_input_list=True,
            inputs=[io.AnyType.Input("value")],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, value: list[Any]) -> io.NodeOutput:
        return io.NodeOutput(ui={"digest": [digest(value)]})


class SoakProbe(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [Witness, Digest]


async def comfy_entrypoint() -> SoakProbe:
    return SoakProbe()


@PromptServer.instance.routes.get("/soak/state")
async def state(_request: web.Request) -> web.Response:
    return web.json_response(TRACES.state())


@PromptServer.instance.routes.get("/soak/trimmed")
async def trimmed(_request: web.Request) -> web.Response:
    return web.json_response(trimmed_mb())
