"""LitServe around the same Captioner, or around none: `python -m tests.proofs.peer captions|noop PORT`."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch

import base64
import sys

import litserve
import litserve.server
from starlette.responses import Response

from model import Captioner, CaptionResult, ImageView, choose_policy, prepare
from service.http.dialects.native.json_body import result_json
from service.http.json_encoding import encode_json
from tests.proofs.serving import BATCH_SIZE


class CaptionApi(litserve.LitAPI):
    """Decodes images, captions them in batches, and responds with maps, as the service does."""

    def setup(self, device: str) -> None:
        choose_policy(num_threads=2).apply()
        self._captioner = Captioner.load()

    def decode_request(self, request: dict[str, str]) -> ImageView:
        return prepare(base64.b64decode(request["image"]), self._captioner.image_config)

    def batch(self, inputs: list[ImageView]) -> list[ImageView]:
        return inputs

    def predict(self, views: list[ImageView]) -> list[tuple[ImageView, CaptionResult]]:
        return list(zip(views, self._captioner.caption(views), strict=True))

    def unbatch(self, output: list[tuple[ImageView, CaptionResult]]) -> list[tuple[ImageView, CaptionResult]]:
        return output

    def encode_response(self, output: tuple[ImageView, CaptionResult]) -> Response:
        body = encode_json(result_json("caption", "default", "en", *output, None))
        return Response(body, media_type="application/json")


class NoopApi(litserve.LitAPI):
    """Reads a body and responds with a word."""

    def setup(self, device: str) -> None:
        return

    def decode_request(self, request: dict[str, str]) -> int:
        return len(request["image"])

    def predict(self, size: int) -> int:
        return size

    def encode_response(self, output: int) -> dict[str, str]:
        return {"text": "a word"}


def main() -> None:
    """Serve until this process is killed."""
    kind, port = sys.argv[1:]
    litserve.server._MCP_AVAILABLE = False  # LitServe 0.2.19 does not start where mcp is installed and fastmcp is not
    if kind == "captions":
        api: litserve.LitAPI = CaptionApi(max_batch_size=BATCH_SIZE, batch_timeout=0.01)
    else:
        api = NoopApi()
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=90)
    server.run(host="127.0.0.1", port=int(port), generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
