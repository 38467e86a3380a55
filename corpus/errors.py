"""What is wrong with somebody's data: the file, the record and what to do."""

from model import CaptionerError


class DataError(CaptionerError):
    """Captioned photographs that cannot be read as told."""
