"""What the service can be told from outside: the one place that reads the environment.

Every field is an environment variable SIGHTLINE_<NAME>, and a key of the TOML file that `config` names. The environment wins
over the file, the flags of `python -m service` over both.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from model import ConfigError


class Settings(BaseSettings):
    """Settings of one process."""

    model_config = SettingsConfigDict(env_prefix="SIGHTLINE_", extra="ignore")

    config: str = Field("", description="TOML file of these settings; environment and flags win over it")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    checkpoint: str = Field("", description="FOLDER, hub:ID or NAME=either, several with commas; empty: the embedded one")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps; auto prefers a GPU")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="numeric type; auto depends on device and processor"
    )
    threads: int = Field(0, ge=0, description="threads of the network; 0: the container's CPU quota")
    max_body_bytes: int = Field(20_000_000, ge=1, description="largest request body")
    body_seconds: float = Field(30.0, gt=0, description="for a request's body to arrive; then 408")
    header_seconds: float = Field(10.0, gt=0, description="for a connection's first byte and headers; then 408")
    write_seconds: float = Field(30.0, gt=0, description="for a client to read on; then its connection is closed")
    max_header_bytes: int = Field(32_768, ge=1024, description="a request's line and headers; more are a 431")
    max_headers: int = Field(100, ge=1, description="a request's headers; more are a 431")
    max_pixels: int = Field(24_000_000, ge=1, description="largest picture, width x height by its header")
    max_edge: int = Field(16_384, ge=1, description="longest edge of a picture")
    formats: str = Field("JPEG,PNG,WEBP", description="picture formats taken; GIF, BMP and TIFF can be added")
    admin_keys_file: str = Field("", description="file of the keys that may load checkpoints, one a line; empty: nobody may")
    url_hosts: str = Field("", description="hosts that pictures may be fetched from, with commas; empty: none")
    url_networks: str = Field("", description="networks beside the public ones that they may be in (10.0.0.0/8), with commas")
    max_batch_rows: int = Field(64, ge=1, description="rows that step together; beams and samples are rows")
    encode_batch_size: int = Field(4, ge=1, description="pictures an encoder call while rows run, which wait for it")
    max_queue_images: int = Field(96, ge=1, description="pictures waiting or worked on; more are answered 503")
    max_queue_bytes: int = Field(400_000_000, ge=1, description="bytes of all requests together")
    max_queue_pixels: int = Field(96_000_000, ge=1, description="pixels of all pictures being decoded together")
    deadline_seconds: float = Field(30.0, gt=0, description="from the request's body to its answer; then 504")
    decoders: int = Field(2, ge=1, description="processes that decode pictures")
    image_decode_seconds: float = Field(1.5, gt=0, description="a picture's decoding")
    image_decode_memory: int = Field(1_000_000_000, ge=50_000_000, description="bytes that a decoder may take")
    watchdog_seconds: float = Field(10.0, gt=0, description="of one call of the network; then the process ends with status 70")
    drain_seconds: float = Field(2.0, ge=0, description="from SIGTERM, when readiness falls, to the listener's closing")
    keys_file: str = Field("", description="file of the keys that may use /v1, one a line; empty: everybody may")
    requests_per_minute: int = Field(0, ge=0, description="of one key, or of one address where there are no keys; 0: no limit")
    cors_origins: str = Field("", description="origins whose pages may call, with commas; * is all; empty: none")
    metrics: bool = Field(True, description="serve /metrics")
    docs: bool = Field(True, description="serve /docs and /openapi.json")
    log_format: Literal["text", "json"] = Field("text", description="of the log on standard error")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where settings come from, what wins first. Raises ConfigError for a file that cannot be used."""
        path = init_settings().get("config") or os.environ.get("SIGHTLINE_CONFIG", "")
        if not path:
            return init_settings, env_settings
        return init_settings, env_settings, InitSettingsSource(settings_cls, _from_file(path, set(cls.model_fields)))


def _from_file(path: str, known: set[str]) -> dict[str, Any]:
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"config is {path!r}, which cannot be read ({error}); it needs a TOML file of settings") from error
    if unknown := sorted(found.keys() - known):
        raise ConfigError(f"config {path!r} has unknown settings {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    return found
