"""Sources of checkpoints that are damaged on purpose, and what an error about them must not contain."""

from __future__ import annotations

import json
import re

import pytest

from model import CheckpointError
from model.pretrained import convert_source
from tests.test_convert import edit

# Words of other libraries' messages, and addresses of memory.
FOREIGN_TEXT = re.compile(
    r"0x[0-9a-f]{6,}|Weights only|weights_only|pickle|Unpickl|HeaderTooLarge|MetadataIncomplete|InvalidHeader|Expecting|"
    r"Extra data|delimiter|Traceback|Error\(|Errno|codec can't|safetensors_rust|set_int_max|invalid literal|data did not match"
)


def write(folder, name, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text)


def configure(folder, **fields):
    edit(folder, "config.json", lambda config: config.update(fields))


def expect_refused(folder, tmp_path, message):
    """Convert, with an error that has only our own words, and write no folder."""
    with pytest.raises(CheckpointError, match=message) as caught:
        convert_source(folder, tmp_path / "ours")
    assert not FOREIGN_TEXT.search(str(caught.value)), caught.value
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ours").exists()
