"""Errors that data from outside can cause: one base class and its children.

Every message says what was received, what is expected and what to do next.
"""


class CaptionerError(Exception):
    """Base of every error that data from outside can cause in this package."""


class ConfigError(CaptionerError, ValueError):
    """A configuration or an option has an invalid value. The message begins with the name of the field."""


class CheckpointError(CaptionerError):
    """A checkpoint folder is missing, incomplete or does not match its own configuration."""


class ImageError(CaptionerError):
    """Bytes that cannot become an ImageView. `code` is the error code of docs/service.md."""

    code = "broken_image"


class EmptyImageError(ImageError):
    """No bytes at all."""

    code = "empty_body"


class UnsupportedImageError(ImageError):
    """The first bytes are not those of an enabled format."""

    code = "unsupported_image_format"


class ImageTooLargeError(ImageError):
    """The header announces more pixels than the limit; nothing was decoded."""

    code = "too_many_pixels"


class RegionError(ImageError):
    """A region of an image that contains none of its pixels."""


class TextError(CaptionerError, ValueError):
    """A caption or prompt that the tokenizer or the decoder cannot accept."""


def read_reason(error: OSError | ValueError) -> str:
    """Return why the system cannot read a file, without its number and path; a ValueError is a name that no file can have."""
    return getattr(error, "strerror", None) or "its name is not that of a file"
