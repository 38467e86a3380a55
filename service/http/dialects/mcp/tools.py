"""The tools of the Model Context Protocol, over the package mcp. Imported by the first request of /mcp."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any

from mcp.server import Server, ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ImageContent,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from pydantic import BaseModel, Field
from starlette.requests import Request

from service.errors import ServiceError, internal_error
from service.http.body import RequestBody
from service.http.dialects.flow import caption_image, disconnected, prepare_image
from service.http.dialects.foreign import image_or_url, parse_body
from service.http.dialects.native.json_body import word_json
from service.http.dialects.native.outputs import THUMBNAIL_EDGE, contact_sheet_png
from service.http.dialects.native.parse import ParsedRequest, parse_captions, parse_explanation
from service.runtime import ClientLeft, Engine, Ticket
from service.version import VERSION

_LOG = logging.getLogger(__name__)
_IMAGE = "a data: URL or base64 of an image file, or an https URL if the service allows its host"
_SHEET = "true: the result has an image with the map of every word"


class CaptionArguments(BaseModel):
    """Arguments of caption_image."""

    image: str = Field(description=_IMAGE)
    num_captions: int = Field(1, ge=1, le=8, description="an integer from 1 to 8")
    language: str | None = Field(None, description="a language tag such as en; the default is the checkpoint's")
    model: str | None = Field(None, description="a checkpoint's name")
    contact_sheet: bool = Field(True, description=_SHEET)


class ExplainArguments(BaseModel):
    """Arguments of explain_caption."""

    image: str = Field(description=_IMAGE)
    caption: str = Field(min_length=1, max_length=4000, description="the caption to explain, up to 60 words")
    language: str | None = Field(None, description="a language tag such as en; the default is the checkpoint's")
    model: str | None = Field(None, description="a checkpoint's name")
    contact_sheet: bool = Field(True, description=_SHEET)


_TOOLS: dict[str, tuple[type[BaseModel], str]] = {
    "caption_image": (
        CaptionArguments,
        "Describe an image in one sentence. Each word comes with its probability, how much it depends on the image, and the box "
        "that it came from; a contact sheet shows the attention map of every word.",
    ),
    "explain_caption": (
        ExplainArguments,
        "For a caption that was written elsewhere: how probable each of its words is for this image, how much it depends on the "
        "image, and where in the image it is.",
    ),
}


def session_manager(engine: Engine, request: Request, ticket: Ticket) -> StreamableHTTPSessionManager:
    """Return what answers one HTTP request: a server with the tools, which take their images from `ticket`."""

    async def list_tools(_: ServerRequestContext, __: PaginatedRequestParams | None) -> ListToolsResult:
        annotations = ToolAnnotations(read_only_hint=True, open_world_hint=False)
        tools = [
            Tool(name=name, description=text, input_schema=kind.model_json_schema(), annotations=annotations)
            for name, (kind, text) in _TOOLS.items()
        ]
        return ListToolsResult(tools=tools)

    async def call_tool(_: ServerRequestContext, params: CallToolRequestParams) -> CallToolResult:
        try:
            return await _call(engine, request, ticket, params.name, params.arguments or {})
        except ServiceError as error:
            return _error(error)
        except ClientLeft:
            return CallToolResult(content=[], is_error=True)
        except Exception as error:
            _LOG.error("bug id=%s", request.scope["state"]["request_id"], exc_info=error)
            return _error(internal_error())

    server: Server[Any] = Server("sightline", version=VERSION, on_list_tools=list_tools, on_call_tool=call_tool)
    return StreamableHTTPSessionManager(
        server, json_response=True, stateless=True, max_request_body_size=engine.settings.max_body_bytes
    )


async def _call(engine: Engine, request: Request, ticket: Ticket, name: str, values: dict[str, Any]) -> CallToolResult:
    """Return the result of a tool. Raises ServiceError."""
    if name not in _TOOLS:
        raise ServiceError("invalid_option", f"there is no tool {name[:80]!r}; there are {', '.join(_TOOLS)}")
    arguments: Any = parse_body(_TOOLS[name][0], values)
    options: dict[str, Any] = {"model": arguments.model, "language": arguments.language, "map_size": "none"}
    ticket.take("images", 1)
    image = image_or_url(arguments.image, "image")
    if isinstance(arguments, ExplainArguments):
        body = RequestBody([image], options | {"caption": arguments.caption}, True)
        parsed = parse_explanation(engine, request, body)
    else:
        _, captioner = engine.captioner(arguments.model)
        count = arguments.num_captions
        beams = {"strategy": "beam", "num_beams": max(count, captioner.config.generation.num_beams)}
        body = RequestBody([image], options | {"num_return_sequences": count} | (beams if count > 1 else {}), True)
        parsed = parse_captions(engine, request, body)
    work = _result(engine, parsed, ticket, has_sheet=arguments.contact_sheet)
    return await engine.within(engine.deadline(), disconnected(request), work)


async def _result(engine: Engine, parsed: ParsedRequest, ticket: Ticket, *, has_sheet: bool) -> CallToolResult:
    """Caption or explain the image; the structured content has no map values, the contact sheet shows them."""
    prepared = await prepare_image(engine, parsed, ticket, THUMBNAIL_EDGE if has_sheet else 0)
    result = await caption_image(engine, parsed, prepared)
    width, height = prepared.view.source_size
    captions = [
        {
            "text": caption.text,
            "confidence": caption.confidence,
            "words": [_word(word_json(word, prepared.view, result.grid, "none")) for word in caption.words],
        }
        for caption in result.captions
    ]
    structured = {"model": parsed.model, "image": {"width": width, "height": height}, "captions": captions}
    content: list[Any] = [TextContent(text=json.dumps(structured, ensure_ascii=False))]
    if has_sheet:
        png = await engine.in_writer(lambda: contact_sheet_png(prepared, result))
        content.append(ImageContent(data=base64.b64encode(png).decode("ascii"), mime_type="image/png"))
    return CallToolResult(content=content, structured_content=structured)


def _word(body: dict[str, Any]) -> dict[str, Any]:
    names = ("text", "probability", "confidence", "image_reliance", "box")
    return {name: round(value, 4) if isinstance(value := body[name], float) else value for name in names}


def _error(error: ServiceError) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=f"{error.code}: {error.detail}")], is_error=True)
