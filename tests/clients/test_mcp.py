"""The client of the package mcp, with the old and the new handshake."""

from __future__ import annotations

import asyncio
import base64
import io

import pytest
from PIL import Image


def session(service, work, mode="auto", headers=None):
    """Run `work` with a connected client, and return its result."""
    import httpx2
    from mcp.client.client import Client
    from mcp.client.streamable_http import streamable_http_client

    async def run():
        async with httpx2.AsyncClient(headers=headers or {}) as http:
            transport = streamable_http_client(f"{service.url}/mcp", http_client=http)
            async with Client(transport, mode=mode) as client:
                return await work(client)

    return asyncio.run(run())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_tools_caption_and_explain_an_image(service, text, mode):
    async def work(client):
        tools = (await client.list_tools()).tools
        captioned = await client.call_tool("caption_image", {"image": service.data_url, "num_captions": 2})
        values = {"image": service.data_url, "caption": "a blue star and a dog", "contact_sheet": False}
        return tools, captioned, await client.call_tool("explain_caption", values)

    tools, captioned, explained = session(service, work, mode)
    assert [tool.name for tool in tools] == ["caption_image", "explain_caption"]
    assert not captioned.is_error
    assert captioned.structured_content["captions"][0]["text"] == text
    assert len(captioned.structured_content["captions"]) == 2
    sheet = Image.open(io.BytesIO(base64.b64decode(captioned.content[1].data)))
    assert sheet.format == "PNG"
    assert sheet.width > 224
    assert len(explained.content) == 1
    words = {word["text"]: word for word in explained.structured_content["captions"][0]["words"]}
    assert words["star"]["probability"] > words["dog"]["probability"]


def test_every_error_is_of_its_own_kind(service, secured):
    async def failed(client):
        return [
            await client.call_tool("caption_image", {"image": "bm8gaW1hZ2U="}),
            await client.call_tool("caption_image", {"image": service.data_url, "model": "none"}),
            await client.call_tool("caption_image", {}),
            await client.call_tool("draw", {}),
        ]

    results = session(service, failed)
    assert all(result.is_error for result in results)
    codes = [result.content[0].text.partition(":")[0] for result in results]
    assert codes == ["unsupported_image_format", "unknown_model", "invalid_option", "invalid_option"]

    async def tools(client):
        return await client.list_tools()

    assert session(secured, tools, headers={"Authorization": "Bearer a-key"}).tools
    assert "needs a key" in failure(lambda: session(secured, tools))
    with service.full():
        assert "images are waiting" in failure(lambda: session(service, tools))


def failure(call) -> str:
    """Return the texts of the errors that a call raises, of all in a group."""
    with pytest.raises(BaseException) as raised:  # noqa: PT011  the client raises groups
        call()
    errors, texts = [raised.value], []
    for error in errors:
        texts.append(str(error))
        errors += [*getattr(error, "exceptions", ()), *filter(None, [error.__cause__])]
    return " ".join(texts)
