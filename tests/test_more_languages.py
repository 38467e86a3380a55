"""Languages that a network lacks (training/languages.py): the tokens that it gets, and a run of train.py that adds one."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace

import pytest
import torch

import train
from model import CaptionNetwork, load_checkpoint, prefix_ids, save_checkpoint
from tests.networks import redraw, tiny_config
from training.languages import load_with_languages, with_languages

TEXT = "a brown dog runs on the grass"


@pytest.mark.parametrize("more", [("zh",), ("zh", "EN", "de", "ZH")])
@pytest.mark.parametrize("offset", [0, 2])
def test_a_network_with_more_languages_starts_with_what_it_could_do(tokenizer, pixels, more, offset):
    config = tiny_config(tokenizer.size)
    if more != ("zh",):  # of two languages, with their tokens
        config = replace(config, languages=("en", "de"), language_token_ids=(300, 301))
    config = replace(config, decoder=replace(config.decoder, position_offset=offset, head_bias=True))
    torch.manual_seed(0)
    old = CaptionNetwork(config).double().eval()
    redraw(old, 4)
    grown_config, grown_tokenizer = with_languages(config, tokenizer, more)
    new = CaptionNetwork(grown_config).double().eval()
    load_with_languages(new, config, old.state_dict())

    assert grown_config.languages == (("en", "zh") if more == ("zh",) else ("en", "de", "zh"))
    assert [grown_tokenizer.decode([token]) for token in grown_config.language_token_ids if token >= tokenizer.size] == [""] * (
        2 if more == ("zh",) else 1
    )
    assert set(grown_config.decoder.suppress_tokens) >= set(grown_config.language_token_ids)
    tokens = torch.tensor([tokenizer.encode(TEXT)])
    for language in grown_config.languages:
        logits = []
        for one, own, tag in (
            (old, tokenizer, language if language in config.languages else ""),
            (new, grown_tokenizer, language),
        ):
            special = torch.tensor([prefix_ids(one.config, own, tag).special])
            state = one.start(one.encode(pixels[:1]))
            logits.append(one.decode(torch.cat([special, tokens], 1), state)[0][:, special.size(1) - 1 :, : tokenizer.size])
        count = 1 if more == ("zh",) else None  # with a first language token the start is attended to twice
        torch.testing.assert_close(logits[1][:, :count], logits[0][:, :count], atol=1e-10, rtol=0, msg=language)
    assert with_languages(grown_config, grown_tokenizer, more) == (grown_config, grown_tokenizer), "none is missing"


def test_a_run_adds_languages_and_continues_with_them(tiny_captioner, tmp_path, photo, capsys):
    with tarfile.open(tmp_path / "train-00.tar", "w") as shard:
        for number in range(4):
            content = photo(32, 24, seed=number)
            member = tarfile.TarInfo(f"{number}.png")
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    for language, text in (("en", "a red dog"), ("zh", "\u4e00\u53ea\u7ea2\u72d7")):
        rows = [{"image": str(number), "split": "train", "captions": [text]} for number in range(4)]
        (tmp_path / f"captions.{language}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = tiny_captioner.runtime
    save_checkpoint(tmp_path / "start", own.config, own.state_dict(), tiny_captioner.tokenizer, "")
    run = tmp_path / "run"
    flags = [
        "--data",
        str(tmp_path),
        "--init",
        str(tmp_path / "start"),
        "--run",
        str(run),
        "--more-languages",
        "zh",
        "--no-check",
    ]
    assert train.main([*flags, "--max-steps", "2", "--batch-size", "2", "--val-share", "0", "--num-views", "1"]) == 0
    assert "new languages: zh" in capsys.readouterr().out
    assert train.main(["--run", str(run), "--resume", "--max-steps", "4"]) == 0
    trained = load_checkpoint(run / "last")
    assert trained.config.languages == ("en", "zh")
    assert [trained.tokenizer.decode([token]) for token in trained.config.language_token_ids] == ["", ""]
    start = tiny_captioner.tokenizer.size
    assert trained.config.language_token_ids == (start, start + 1)
