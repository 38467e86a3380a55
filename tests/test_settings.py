"""Settings: flags win over the environment, the environment wins over a file; and the formats of the log."""

from __future__ import annotations

import json
import logging

import pytest
from pydantic import ValidationError

from model import ConfigError
from service import Settings
from service.__main__ import main, make_parser
from service.logs import JsonFormatter


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text('port = 1001\nthreads = 3\nformats = "PNG"\n')
    return str(path)


def test_flags_win_over_the_environment_and_the_environment_over_the_file(file, monkeypatch):
    monkeypatch.setenv("SIGHTLINE_THREADS", "2")
    monkeypatch.setenv("SIGHTLINE_PORT", "1002")
    settings = Settings(config=file, port=1003)
    assert (settings.port, settings.threads, settings.formats, settings.host) == (1003, 2, "PNG", "127.0.0.1")
    monkeypatch.setenv("SIGHTLINE_CONFIG", file)
    monkeypatch.delenv("SIGHTLINE_THREADS")
    assert Settings().threads == 3


def test_every_setting_is_a_flag_whose_help_has_its_default():
    flags = {flag: action for action in make_parser()._actions for flag in action.option_strings}
    for name, field in Settings.model_fields.items():
        help_text = flags["--" + name.replace("_", "-")].help.replace("%%", "%")
        assert field.description in help_text, name
        default = str(field.default).lower() if isinstance(field.default, bool) else field.default
        assert f"(default: {'none' if default == '' else default})" in help_text, name
    assert make_parser().format_help()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_value_of_a_flag_is_the_value_of_its_setting(name):
    flag = "--" + name.replace("_", "-")
    values = {
        "dtype": "bfloat16",
        "log_format": "json",
        "metrics": None,
        "docs": None,
        "page": None,
        "config": "",
        "drain_seconds": "0.5",
    }
    value = values.get(name, "77000000" if name == "image_decode_memory" else "2048")
    value = "True" if name in ("accept_truncated", "slow_maps") else value
    arguments = [f"--no-{name}"] if value is None else [flag] if value == "True" else [flag, value]
    options = vars(make_parser().parse_args(arguments))
    assert options.keys() == {name}, "flags that are not used are absent"
    assert str(getattr(Settings(**options), name)) in ("False" if value is None else value, f"{value}.0")


def test_a_repeated_checkpoint_flag_is_joined_with_commas():
    options = make_parser().parse_args(["--checkpoint", "a=one", "--checkpoint", "b=two"])
    assert Settings(**vars(options)).checkpoint == "a=one,b=two"


@pytest.mark.parametrize(
    ("text", "message"),
    [("prot = 1", "has unknown settings prot; known are"), ("port =", "cannot be read"), (None, "cannot be read")],
)
def test_a_file_that_cannot_be_used_is_reported(tmp_path, text, message, capsys):
    path = tmp_path / "settings.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Settings(config=str(path))
    assert main(["--config", str(path)]) == 1
    assert message in capsys.readouterr().err


def test_a_value_of_the_wrong_type_is_an_error_that_names_the_setting(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text('port = "many"')
    with pytest.raises(ValidationError, match="port"):
        Settings(config=str(path))


def test_a_json_log_line_has_the_fields_of_its_record():
    record = logging.LogRecord("service.app", logging.INFO, "app.py", 1, "request %s", ("x",), None)
    record.fields = {"id": "abc", "status": 200}
    line = json.loads(JsonFormatter().format(record))
    expected = {"level": "info", "logger": "service.app", "message": "request x", "id": "abc", "status": 200}
    assert {name: line[name] for name in expected} == expected
    assert line["time"].endswith("Z")
    try:
        raise ValueError("why")
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    assert "ValueError: why" in json.loads(JsonFormatter().format(record))["exception"]


def test_requests_are_logged_with_their_fields(client, caplog):
    caplog.set_level(logging.INFO, "service.app")
    client.get("/livez", headers={"x-request-id": "mine"})
    (record,) = [record for record in caplog.records if record.name == "service.app"]
    assert (record.fields["id"], record.fields["path"], record.fields["status"]) == ("mine", "/livez", 200)
