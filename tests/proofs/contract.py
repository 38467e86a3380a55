"""The OpenAPI document: fuzzed requests get the responses that it documents, and a client generated from it captions an image."""

from __future__ import annotations

import base64
import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.proofs.load import Figures, scene_images
from tests.test_process import running

_CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def fuzzed(_seconds: float) -> Figures:
    """Schemathesis over the document, the administrator's path included: no undocumented status, no 500."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "keys").write_text("a key\n")
        settings = {"SIGHTLINE_ADMIN_KEYS_FILE": f"{folder}/keys", "SIGHTLINE_THREADS": "2", "HF_HUB_OFFLINE": "1"}
        with running(**settings) as (port, process, _):
            command = [
                str(Path(sys.executable).parent / "schemathesis"), "run", f"http://127.0.0.1:{port}/openapi.json",
                "--checks", _CHECKS, "--max-examples", "300", "--seed", "1", "--generation-database", "none",
                "--header", "x-api-key: a key", "--request-timeout", "60", "--report", "json", "--report-json-path",
                f"{folder}/report.json",
            ]  # fmt: skip
            run = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, timeout=1200, check=False)
            report = json.loads(Path(folder, "report.json").read_text())
            is_alive = process.poll() is None
    cases = report["test_cases"]
    if cases["with_failures"]:
        print(run.stdout[-6000:], file=sys.stderr)
    return {
        "operations": report["operations"]["tested"],
        "cases": cases["generated"],
        "with failures": cases["with_failures"],
        "met": cases["generated"] >= 2000 and not cases["with_failures"] and run.returncode == 0 and is_alive,
    }


def generated_client(_seconds: float) -> Figures:
    """The client that openapi-python-client generates captions an image as bytes, in a form, and in JSON."""
    with tempfile.TemporaryDirectory() as folder, running(SIGHTLINE_THREADS="2") as (port, _, _):
        address = f"http://127.0.0.1:{port}"
        command = [
            str(Path(sys.executable).parent / "openapi-python-client"), "generate", "--url", f"{address}/openapi.json",
            "--output-path", f"{folder}/generated_package", "--meta", "none",
        ]  # fmt: skip
        path = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=path, check=False)
        assert run.returncode == 0, run.stdout
        sys.path.insert(0, folder)
        try:
            texts = _captions(address)
        finally:
            sys.path.remove(folder)
    return {"captions": texts, "met": len(set(texts.values())) == 1 and all(texts.values())}


def _captions(address: str) -> dict[str, str]:
    """Return the first caption by the form of the request."""
    client = importlib.import_module("generated_package").Client(base_url=address, timeout=60)
    captions = importlib.import_module("generated_package.api.default.captions")
    types, models = importlib.import_module("generated_package.types"), importlib.import_module("generated_package.models")
    (image,) = scene_images(1)
    file = types.File(payload=io.BytesIO(image), file_name="a.jpg", mime_type="image/jpeg")
    bodies = {
        "bytes": file,
        "form": models.CaptionsFilesBody(image=types.File(io.BytesIO(image), "a.jpg", "image/jpeg")),
        "JSON": models.CaptionsJsonBody(image=base64.b64encode(image).decode()),
    }
    texts = {}
    for name, body in bodies.items():
        response = captions.sync(client=client, body=body)
        texts[name] = (getattr(response, "captions", None) and response.captions[0].text) or f"{response}"
    return texts
