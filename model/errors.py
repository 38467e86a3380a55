"""What can go wrong between pixels and words: one base class and its few children.

Every message has three parts: what came, what is needed, what to do next.
"""


class CaptionerError(Exception):
    """Base of every error that outside data can raise in this room."""


class ConfigError(CaptionerError, ValueError):
    """A configuration or an option has a value that it cannot have."""


class CheckpointError(CaptionerError):
    """A checkpoint folder is missing, incomplete or does not fit its own configuration."""


class ImageError(CaptionerError):
    """Bytes that cannot become an ImageView. `code` is the error code of docs/service.md."""

    code = "broken_image"


class EmptyImageError(ImageError):
    """No bytes at all."""

    code = "empty_body"


class UnsupportedImageError(ImageError):
    """The first bytes are those of no format that is switched on."""

    code = "unsupported_image_format"


class ImageTooLargeError(ImageError):
    """The header promises more pixels than the limit allows; nothing was decoded."""

    code = "too_many_pixels"


class TextError(CaptionerError, ValueError):
    """A caption or prompt that the tokenizer or the decoder cannot take."""
