"""Errors in OpenAI's shape, with its codes for images."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from service.errors import ServiceError
from service.http.dialects.foreign import error_text, status_of
from service.http.dialects.native.problems import printable

_CODES = {  # OpenAI's names; those that are missing stay as they are
    "broken_base64": "invalid_base64_image",
    "broken_image": "image_parse_error",
    "unsupported_image_format": "invalid_image_format",
    "too_many_pixels": "image_too_large",
    "body_too_large": "image_file_too_large",
    "host_not_allowed": "invalid_image_url",
    "empty_body": "empty_image_file",
    "unknown_model": "model_not_found",
    "missing_key": "invalid_api_key",
    "wrong_key": "invalid_api_key",
    "rate_limited": "rate_limit_exceeded",
    "invalid_option": "invalid_value",
    "internal": "server_error",
}


class OpenAIErrorBody(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """The body of an error."""

    error: OpenAIErrorBody


def code_of(error: ServiceError) -> str:
    """Return OpenAI's code of an error."""
    if error.options and error.options[0].name == "url":
        return "failed_to_download_image"
    return _CODES.get(error.code, error.code)


def error_type(status: int) -> str:
    """Return OpenAI's type of the errors of a status."""
    return "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"


def error_json(error: ServiceError) -> dict[str, Any]:
    """Return the body of an error."""
    param = printable(error.options[0].name, 80) if error.options else None
    message = error_text(error)
    return {"error": {"message": message, "type": error_type(status_of(error.code)), "param": param, "code": code_of(error)}}
