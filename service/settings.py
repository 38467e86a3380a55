"""The settings of the service: the one module that reads the environment.

Every field is an environment variable SIGHTLINE_<NAME>, a key of the TOML file that `config` names, and a flag of
`python -m service`. The environment wins over the file, flags win over both.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of one process."""

    model_config = SettingsConfigDict(env_prefix="SIGHTLINE_", extra="ignore")

    config: str = Field("", description="TOML file of these settings; an unknown name in it is an error")
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 in the Docker image")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0: a free one")
    checkpoint: str = Field(
        "", description="FOLDER, hub:ORGANIZATION/NAME[@REVISION] or NAME=either, comma-separated; the first is the default"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps; auto prefers a GPU")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="numeric type; auto depends on device and processor, the log says which"
    )
    threads: int = Field(0, ge=0, description="CPU threads of the network; 0: the container's CPU quota")
    max_body_bytes: int = Field(20_000_000, ge=1, description="largest request body, bytes")
    body_seconds: float = Field(30.0, gt=0, description="time for a request's body to arrive, seconds; then 408")
    header_seconds: float = Field(10.0, gt=0, description="time for a connection's first byte and headers, seconds; then 408")
    write_seconds: float = Field(30.0, gt=0, description="time for a client to read each megabyte, seconds; then disconnected")
    max_header_bytes: int = Field(32_768, ge=1024, description="request line and headers, bytes; more is a 431")
    max_headers: int = Field(100, ge=1, description="number of headers; more is a 431")
    max_connections_per_client: int = Field(
        256,
        ge=0,
        description="open connections per client address; more are answered 429; 0: no limit; trusted_proxies have none",
    )
    trusted_proxies: str = Field(
        "",
        description="addresses and networks of proxies whose X-Forwarded-For is trusted, comma-separated; empty: none",
    )
    root_path: str = Field("", description="path that a reverse proxy serves this service under, such as /captioner")
    max_pixels: int = Field(64_000_000, ge=1, description="largest image, width x height by its header, pixels")
    max_edge: int = Field(16_384, ge=1, description="longest edge of an image, pixels")
    formats: str = Field(
        "JPEG,PNG,WEBP,AVIF", description="accepted image formats; GIF, BMP, TIFF and HEIC (extra heic) can be added"
    )
    accept_truncated: bool = Field(
        False, description="caption what can be decoded of truncated or damaged images; the response's image.is_truncated says so"
    )
    admin_keys_file: str = Field(
        "", description="file of the keys that may load checkpoints, one per line; empty: loading is off"
    )
    url_hosts: str = Field(
        "", description="hosts that images may be fetched from, comma-separated HOST or HOST:PORT; https only; empty: none"
    )
    url_networks: str = Field("", description="networks other than the public ones that url_hosts may be in, such as 10.0.0.0/8")
    max_batch_rows: int = Field(64, ge=1, description="rows that step together; a beam or a sample is a row")
    encode_batch_size: int = Field(4, ge=1, description="images per encoder call while rows run, which wait for it")
    max_queue_images: int = Field(96, ge=1, description="images waiting or being processed; more are answered 503")
    max_queue_bytes: int = Field(400_000_000, ge=1, description="received bytes of all requests together; one client: half of it")
    max_queue_pixels: int = Field(128_000_000, ge=1, description="pixels of all images being decoded together")
    slow_maps: bool = Field(
        False, description="allow maps=occlusion, a decoder pass per patch: it keeps all other clients waiting for seconds"
    )
    deadline_seconds: float = Field(30.0, gt=0, description="time from a request's body to its response, seconds; then 504")
    image_workers: int = Field(2, ge=1, description="processes that decode images")
    image_decode_seconds: float = Field(5.0, gt=0, description="time to decode one image, seconds; then 400")
    image_decode_memory: int = Field(1_500_000_000, ge=50_000_000, description="memory that an image worker may take, bytes")
    watchdog_seconds: float = Field(
        10.0, gt=0, description="time of one call of the network, seconds; then the process ends with status 70"
    )
    drain_seconds: float = Field(2.0, ge=0, description="time from SIGTERM, when readiness falls, to the listener's end, seconds")
    keys_file: str = Field("", description="file of the keys of all paths but the probes, one per line; empty: no keys")
    requests_per_minute: int = Field(0, ge=0, description="POST requests per key, or per address; then 429; 0: no limit")
    cors_origins: str = Field("", description="origins whose pages may call, comma-separated; * is all; empty: none")
    metrics: bool = Field(True, description="serve /metrics")
    page: bool = Field(True, description="serve the web page at /")
    docs: bool = Field(True, description="serve /docs and /openapi.json")
    log_format: Literal["text", "json"] = Field("text", description="format of the log on standard error")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources of settings in their order of precedence. Raises ConfigError for an invalid file."""
        path = init_settings().get("config") or os.environ.get("SIGHTLINE_CONFIG", "")
        if not path:
            return init_settings, env_settings
        return init_settings, env_settings, InitSettingsSource(settings_cls, _read_file(path, set(cls.model_fields)))


def settings_table() -> str:
    """Return all settings as a Markdown table."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
        rows.append(f"| `{name}` | {default or 'none'} | {field.description} |")
    return "\n".join(rows)


def _read_file(path: str, known: set[str]) -> dict[str, Any]:
    from model import ConfigError  # it loads torch, for which `python -m service --help` need not wait

    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"config is {path!r}, which cannot be read as TOML; write for example port = 8000") from error
    if unknown := sorted(values.keys() - known):
        raise ConfigError(f"config {path!r} has unknown settings {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    return values
