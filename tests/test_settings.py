"""Settings: flags over the environment, the environment over a file; logs for people and machines."""

from __future__ import annotations

import json
import logging

import pytest
from pydantic import ValidationError

from model import ConfigError
from service import Settings
from service.__main__ import main
from service.logs import JsonLines


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text('port = 1001\nthreads = 3\nformats = "PNG"\n')
    return str(path)


def test_flags_win_over_the_environment_and_that_over_the_file(file, monkeypatch):
    monkeypatch.setenv("SIGHTLINE_THREADS", "2")
    monkeypatch.setenv("SIGHTLINE_PORT", "1002")
    found = Settings(config=file, port=1003)
    assert (found.port, found.threads, found.formats, found.host) == (1003, 2, "PNG", "127.0.0.1")
    monkeypatch.setenv("SIGHTLINE_CONFIG", file)
    monkeypatch.delenv("SIGHTLINE_THREADS")
    assert Settings().threads == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [("prot = 1", "has unknown settings prot; known are"), ("port =", "cannot be read"), (None, "cannot be read")],
)
def test_a_file_that_cannot_be_used_is_told(tmp_path, text, message, capsys):
    path = tmp_path / "settings.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Settings(config=str(path))
    assert main(["--config", str(path)]) == 1
    assert message in capsys.readouterr().err


def test_a_value_that_is_wrong_is_told(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text('port = "many"')
    with pytest.raises(ValidationError, match="port"):
        Settings(config=str(path))


def test_a_json_line_holds_the_fields_of_a_request():
    record = logging.LogRecord("service.app", logging.INFO, "app.py", 1, "request %s", ("x",), None)
    record.fields = {"id": "abc", "status": 200}
    found = json.loads(JsonLines().format(record))
    assert (found["level"], found["logger"], found["message"], found["id"], found["status"]) == (
        "info", "service.app", "request x", "abc", 200,
    )  # fmt: skip
    assert found["time"].endswith("Z")
    try:
        raise ValueError("why")
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    assert "ValueError: why" in json.loads(JsonLines().format(record))["exception"]


def test_requests_are_logged_with_their_fields(client, caplog):
    caplog.set_level(logging.INFO, "service.app")
    client.get("/livez", headers={"x-request-id": "mine"})
    (record,) = [record for record in caplog.records if record.name == "service.app"]
    assert (record.fields["id"], record.fields["path"], record.fields["status"]) == ("mine", "/livez", 200)
