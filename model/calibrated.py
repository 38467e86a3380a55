"""Where a calibrated confidence applies: the checkpoint's first language, and requests that require one."""

from __future__ import annotations

from model.captions import Caption
from model.config import ConfidenceConfig, ModelConfig
from model.errors import ConfigError
from model.prefix import language_index
from model.prompts import task_of
from model.requests import CaptionRequest


def calibration_of(config: ModelConfig, language: str) -> ConfidenceConfig | None:
    """Return the calibration, which is that of the checkpoint's first language; None for another one. Raises ConfigError."""
    return config.confidence if language_index(config, language) == 0 else None


def check_confidence(config: ModelConfig, request: CaptionRequest) -> None:
    """Raises ConfigError if a request wants a confidence that is not known."""
    if request.options is None or not request.options.min_confidence:
        return
    task = task_of(config, request)
    if task is not None and task.output != "text":
        raise ConfigError(
            f"min_confidence is {request.options.min_confidence}, but task {task.name!r} gives phrases with regions, which are "
            "not shortened; leave it out"
        )
    weights = calibration_of(config, request.language)
    if weights is None or not weights.caption:
        raise ConfigError(
            f"min_confidence is {request.options.min_confidence}, but this checkpoint has no calibrated confidence in this "
            "language; leave it out, or run `python -m evaluation calibrate`"
        )


def passes(caption: Caption, limit: float) -> bool:
    """Return whether a caption's confidence is known and at least `limit`."""
    return caption.confidence is not None and caption.confidence >= limit
