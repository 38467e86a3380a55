"""Images a second: of a checkpoint, or of public families with random weights beside transformers' generate.

Both are given prepared pixels; ours returns a map, a probability and a reliance for every word, the peer tokens alone. Turns
alternate, so that a busy machine is busy for all; ratios are those of a turn.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from evaluation.peers import random_peer, save_peer
from model import Box, Captioner, DtypeName, GenerationOptions, ImageView, convert_source

TOKENS = 16  # of every caption: the end token is banned until then
BATCHES, BEAMS = (1, 8), (1, 3)

Call = Callable[[int, int], Any]  # of a batch and a number of beams


def checkpoint_speed(captioner: Captioner, turns: int) -> dict[str, Any]:
    """Time a checkpoint with and without maps."""
    views = _views(captioner, max(BATCHES))

    def ours(maps: str | None, reliance: bool) -> Call:
        return lambda batch, num_beams: captioner.caption(views[:batch], _options(num_beams), maps=maps, reliance=reliance)

    calls = {"maps and reliance": ours(None, True), "maps": ours(None, False), "neither": ours("none", False)}
    figures: dict[str, Any] = {"numeric type": captioner.policy.reason, "threads": torch.get_num_threads()}
    for (batch, num_beams), seconds in _timed(calls, turns).items():
        figures[_setting(batch, num_beams)] = {
            f"{kind}, images a second: median, least, most": [batch / at for at in (statistics.median(v), max(v), min(v))]
            for kind, v in seconds.items()
        }
    return figures


def speed_beside_peer(family: str, dtype: DtypeName, turns: int) -> dict[str, Any]:
    """Convert a peer of the published size, check that greedy captions are equal in float32, and time both in turns."""
    peer = random_peer(family)
    with tempfile.TemporaryDirectory() as place:
        source, folder = Path(place) / "source", Path(place) / "ours"
        save_peer(peer, source)
        convert_source(source, folder)
        exact = Captioner.load(folder, device="cpu", dtype="float32")
        views = _views(exact, max(BATCHES))
        pixels = torch.stack([view.pixels for view in views])
        found = exact.caption(views[:2], _options(1), maps="none", reliance=False)
        wanted = [exact.tokenizer.decode(row) for row in _generate(peer, pixels[:2], 1).tolist()]
        equal = [answer.captions[0].text for answer in found] == wanted
        del exact
        ours = Captioner.load(folder, device="cpu", dtype=dtype)
    halved = random_peer(family, torch.bfloat16)
    calls: dict[str, Call] = {
        "ours": lambda batch, num_beams: ours.caption(views[:batch], _options(num_beams)),
        "float32": lambda batch, num_beams: _generate(peer, pixels[:batch], num_beams),
        "bfloat16": lambda batch, num_beams: _generate(halved, pixels[:batch].bfloat16(), num_beams),
    }
    figures: dict[str, Any] = {"numeric type": ours.policy.reason, "equal captions in float32": equal}
    for (batch, num_beams), seconds in _timed(calls, turns).items():
        row: dict[str, Any] = {f"{kind}, images a second": batch / statistics.median(values) for kind, values in seconds.items()}
        for kind in ("float32", "bfloat16"):
            ratios = [theirs / mine for theirs, mine in zip(seconds[kind], seconds["ours"], strict=True)]
            row[f"times generate in {kind}: median, least, most"] = [statistics.median(ratios), min(ratios), max(ratios)]
        figures[_setting(batch, num_beams)] = row
    return figures


def _setting(batch: int, num_beams: int) -> str:
    return f"batch {batch}, " + (f"beam {num_beams}" if num_beams > 1 else "greedy")


def _timed(calls: dict[str, Call], turns: int) -> dict[tuple[int, int], dict[str, list[float]]]:
    """Return the seconds of every call by batch and beams; a turn makes each once, and the first one is not counted."""
    seconds: dict[tuple[int, int], dict[str, list[float]]] = {
        (batch, num_beams): {kind: [] for kind in calls} for batch in BATCHES for num_beams in BEAMS
    }
    for turn in tqdm(range(turns + 1), desc="turns", leave=False):
        for (batch, num_beams), kinds in seconds.items():
            for kind, call in calls.items():
                started = time.perf_counter()
                call(batch, num_beams)
                if turn:
                    kinds[kind].append(time.perf_counter() - started)
    return seconds


def _options(num_beams: int) -> GenerationOptions:
    told: dict[str, Any] = {"strategy": "beam", "num_beams": num_beams} if num_beams > 1 else {"strategy": "greedy"}
    return GenerationOptions(**told, max_words=60, max_new_tokens=TOKENS, min_new_tokens=TOKENS)


def _generate(peer: Any, pixels: torch.Tensor, num_beams: int) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = peer.generate(
            pixel_values=pixels, num_beams=num_beams, do_sample=False, max_new_tokens=TOKENS, min_new_tokens=TOKENS
        )
    return found


def _views(captioner: Captioner, count: int) -> list[ImageView]:
    height, width = captioner.image_config.height, captioner.image_config.width
    dice = torch.Generator().manual_seed(0)
    return [
        ImageView(torch.randn(3, height, width, generator=dice), (width, height), Box(0, 0, width, height), "PNG", 1)
        for _ in range(count)
    ]
