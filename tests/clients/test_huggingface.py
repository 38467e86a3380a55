"""huggingface_hub, and @huggingface/inference where Node.js and the package are installed (`make prove-clients` does it)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from tests.test_architecture import ROOT

NODE_MODULES = ROOT / ".venv/node/node_modules"


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """The other tests may reach no hub; here the library is to reach this service."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.mark.parametrize("path", ["", "/models/default", "/pipeline/image-to-text/default"])
def test_image_to_text_is_the_caption(service, text, path):
    from huggingface_hub import InferenceClient

    output = InferenceClient().image_to_text(service.scene, model=service.url + path)
    assert output.generated_text == text


def test_every_error_is_of_its_own_kind(service, secured):
    from huggingface_hub import InferenceClient
    from huggingface_hub.errors import HfHubHTTPError

    def status(url, data=service.scene, token=None) -> int:
        with pytest.raises(HfHubHTTPError) as raised:
            InferenceClient(token=token).image_to_text(data, model=url)
        assert isinstance(raised.value.response.json()["error"], str)
        return raised.value.response.status_code

    assert status(service.url, b"\x89PNG\r\n\x1a\n broken") == 400
    assert status(f"{service.url}/models/Salesforce/blip") == 404
    assert status(secured.url) == 401
    with service.full():
        assert status(service.url) == 429  # the JavaScript client repeats a 503 at once and for ever
    assert InferenceClient(token="a-key").image_to_text(service.scene, model=secured.url)


SCRIPT = """
import { readFileSync } from "node:fs";
import { imageToText } from "@huggingface/inference";
const [url, file] = process.argv.slice(2);
const data = new Blob([readFileSync(file)], { type: "image/png" });
try {
  console.log(JSON.stringify(await imageToText({ endpointUrl: url, data, accessToken: "hf_x" })));
} catch (error) {
  console.log(JSON.stringify({ error: error.name, status: error.httpResponse?.status }));
}
"""


@pytest.mark.skipif(
    not (shutil.which("node") and (NODE_MODULES / "@huggingface/inference").exists()),
    reason="Node.js or @huggingface/inference is not installed",
)
def test_the_javascript_client_gets_one_object(service, secured, text, tmp_path):
    script = NODE_MODULES / "caption.mjs"
    script.write_text(SCRIPT, encoding="utf-8")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n broken")

    def call(url: str, file=ROOT / "docs/images/scene.png") -> dict:
        command = ["node", str(script), url, str(file)]
        environment = {**os.environ, "NODE_PATH": str(NODE_MODULES)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)
        return json.loads(done.stdout)

    assert call(f"{service.url}/models/default")["generated_text"] == text
    assert call(f"{service.url}/models/none")["status"] == 404
    assert call(service.url, broken)["status"] == 400
    assert call(secured.url)["status"] == 401
    with service.full():
        assert call(service.url)["status"] == 429
