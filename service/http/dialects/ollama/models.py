"""Checkpoints as Ollama describes models, its errors and timestamps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from model import Captioner, to_json
from service.errors import ServiceError
from service.http.dialects.foreign import error_text

LATEST = ":latest"  # what Ollama calls a model without a tag


class OllamaError(BaseModel):
    """The body of an error."""

    error: str


def model_name(name: str | None, known: Iterable[str]) -> str | None:
    """Return a checkpoint's name: as it was sent or, if there is no such one, without the tag :latest; None for ""."""
    if not name:
        return None
    return name if name in known else name.removesuffix(LATEST)


def model_entry(name: str, captioner: Captioner) -> dict[str, Any]:
    """Return a checkpoint as an entry of /api/tags."""
    full_name = name if ":" in name else name + LATEST
    return {
        "name": full_name,
        "model": full_name,
        "modified_at": timestamp(datetime.fromtimestamp(captioner.config.created, UTC)),
        "size": 4 * captioner.parameters,
        "digest": hashlib.sha256((json.dumps(to_json(captioner.config)) + captioner.card).encode()).hexdigest(),
        "details": _details(captioner),
    }


def _details(captioner: Captioner) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": "sightline",
        "families": ["sightline"],
        "parameter_size": f"{captioner.parameters / 1e6:.1f}M",
        "quantization_level": "F32",
    }


def show_json(captioner: Captioner) -> dict[str, Any]:
    """Return a checkpoint as /api/show has it."""
    return {
        "modelfile": "",
        "parameters": "",
        "template": "{{ .Prompt }}",
        "license": captioner.config.license,
        "modified_at": timestamp(datetime.fromtimestamp(captioner.config.created, UTC)),
        "details": _details(captioner),
        "model_info": {
            "general.architecture": "sightline",
            "general.parameter_count": captioner.parameters,
            "sightline.context_length": captioner.config.decoder.max_positions,
        },
        "capabilities": ["completion", "vision"],
    }


def error_json(error: ServiceError) -> dict[str, str]:
    """Return the body of an error."""
    return {"error": error_text(error)}


def timestamp(moment: datetime) -> str:
    """Return a moment as RFC 3339 has it, with Z."""
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
