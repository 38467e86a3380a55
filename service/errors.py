"""Errors of requests, independent of any HTTP API: a table of codes and one exception. Dialects render them (service/http)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """What a code means, and the HTTP status it has."""

    status: int
    title: str
    explanation: str


ERRORS: dict[str, ErrorKind] = {
    "empty_body": ErrorKind(400, "The request has no image", "The body, or the image in it, has no bytes."),
    "broken_image": ErrorKind(
        400, "The image cannot be decoded", "The bytes start like an image but are truncated, damaged or too large inside."
    ),
    "broken_base64": ErrorKind(400, "The image is not base64", "In JSON an image is base64 text or a data: URL."),
    "broken_multipart": ErrorKind(400, "The form cannot be read", "The body is not the multipart that its header says."),
    "broken_encoding": ErrorKind(400, "The body cannot be decompressed", "The body is not what its Content-Encoding says."),
    "broken_json": ErrorKind(400, "The JSON cannot be read", "The body is not one JSON object in UTF-8."),
    "missing_key": ErrorKind(401, "A key is required", "Send it as Authorization: Bearer, or as x-api-key."),
    "wrong_key": ErrorKind(401, "The key is unknown", "Ask the operator of this service for one."),
    "host_not_allowed": ErrorKind(403, "The URL's host is not allowed", "Only hosts of the setting url_hosts are fetched from."),
    "unknown_path": ErrorKind(404, "This path does not exist", "See /docs for the paths of this service."),
    "unknown_model": ErrorKind(404, "This model does not exist", "GET /v1/models lists the names."),
    "method": ErrorKind(405, "This path does not support the method", "The header Allow lists the methods."),
    "not_acceptable": ErrorKind(406, "No response in the accepted types", "Accept lists types that this path cannot produce."),
    "slow_body": ErrorKind(408, "The body arrived too slowly", "The limit is the setting body_seconds."),
    "body_too_large": ErrorKind(413, "The body is too large", "The limit is the setting max_body_bytes."),
    "too_many_pixels": ErrorKind(
        413, "The image has too many pixels", "Checked by its header, before decoding: settings max_pixels, max_edge."
    ),
    "unsupported_media_type": ErrorKind(
        415, "The content type is not supported", "Send image/*, multipart/form-data, application/json, or no type at all."
    ),
    "unsupported_encoding": ErrorKind(
        415, "The content encoding is not supported", "Send gzip or deflate, or the body as it is, without Content-Encoding."
    ),
    "unsupported_image_format": ErrorKind(
        415, "The image format is not supported", "Determined by the first bytes; the setting formats lists what is accepted."
    ),
    "invalid_option": ErrorKind(422, "An option is invalid", "`errors` names each option and its allowed values."),
    "rate_limited": ErrorKind(429, "Too many requests from one client", "See Retry-After; setting requests_per_minute."),
    "overloaded": ErrorKind(503, "The service is overloaded", "Retry-After is estimated from the measured rate."),
    "not_ready": ErrorKind(503, "The service is not ready", "It is loading, or its model has failed and it restarts."),
    "draining": ErrorKind(503, "The service is stopping", "Readiness falls, then the listener closes; use another instance."),
    "deadline_exceeded": ErrorKind(504, "No response in time", "The limit is the setting deadline_seconds; the work is dropped."),
    "internal": ErrorKind(500, "Internal error", "A bug of the service, never caused by valid or invalid input."),
}


@dataclass(frozen=True, slots=True)
class OptionError:
    """What is wrong with one option."""

    name: str
    detail: str
    in_query: bool = False  # the option is in the query although the body is JSON
    within: tuple[str, ...] = ()  # members of the JSON that it is in


class ServiceError(Exception):
    """A request that cannot be answered. `detail` says what was received, what is expected and what to do."""

    def __init__(
        self, code: str, detail: str, options: Sequence[OptionError] = (), headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.options = tuple(options)
        self.headers = headers or {}

    @property
    def status(self) -> int:
        return ERRORS[self.code].status


def option_error(name: str, detail: str, *, in_query: bool = False) -> ServiceError:
    """Return the error of one invalid option."""
    return ServiceError("invalid_option", detail, [OptionError(name, detail, in_query)])


def retry_error(code: str, detail: str, seconds: int) -> ServiceError:
    """Return an error that goes away by itself, with Retry-After."""
    return ServiceError(code, detail, headers={"Retry-After": str(seconds)})


def internal_error() -> ServiceError:
    """Return the error of a bug; the log has it under the request id."""
    return ServiceError("internal", "a bug of the service; the log has it under the request id")
