"""Images in the messages of a conversation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from service.errors import ServiceError, option_error
from service.http.dialects.foreign import image_or_url

_IMAGE_TYPES = ("image_url", "input_image", "image")  # chat completions, responses, some clients


def last_image(messages: Iterable[Any], member: str) -> bytes | str:
    """Return the image of the last message that has one: earlier ones are the conversation so far.

    Raises ServiceError if none has one, or if that message has several.
    """
    images: list[Any] = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
        images = [_source(part) for part in parts if part.get("type") in _IMAGE_TYPES] or images
    if not images:
        detail = (
            f"no message in {member!r} has an image; this model captions images and answers no text: add a part "
            '{"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,…"}}'
        )
        raise option_error(member, detail)
    if len(images) > 1:
        detail = f"the last message with images has {len(images)}; send one per request, or use /v1/captions/batch"
        raise option_error(member, detail)
    return image_or_url(images[0], "image_url")


def check_function_call(tool_choice: object) -> None:
    """Raises ServiceError if a function call is required: this model calls none."""
    if tool_choice not in (None, "none", "auto"):
        raise option_error("tool_choice", "tool_choice requires a function call; this model calls none: leave it out")


def _source(part: dict[str, Any]) -> Any:
    """Return the URL or base64 text of a part: `image_url` is an object, or the text itself in responses and some clients."""
    source = part.get("image_url", part.get("image"))
    if part.get("file_id") is not None and source is None:
        raise ServiceError("invalid_option", "file_id refers to a stored file; this service stores none: send a data: URL")
    return source.get("url") if isinstance(source, dict) else source
