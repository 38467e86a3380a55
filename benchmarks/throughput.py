"""Images per second: of a checkpoint, or of public families with random weights next to transformers' `generate`.

Both get prepared pixels. A Captioner returns a map, a probability and a reliance for every word, the peer only tokens. The calls
of all systems alternate in turns, so that other load on the machine slows all of them; ratios are those of one turn.
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

from benchmarks.peers import peer_inputs, random_peer, save_peer
from model import Box, Captioner, DtypeName, GenerationOptions, ImageView, choose_device, convert_source

NUM_TOKENS = 16  # of every caption: the end token is not allowed before
BATCH_SIZES, NUM_BEAMS = (1, 8), (1, 3)

Call = Callable[[int, int], Any]  # of batch size and number of beams
Seconds = dict[str, list[float]]  # of each turn, by system


def measure_checkpoint(captioner: Captioner, turns: int) -> dict[str, Any]:
    """Return images per second of a checkpoint, with and without maps, by batch size and number of beams."""
    views = _random_views(captioner, max(BATCH_SIZES))

    def caption(maps: str | None, reliance: bool) -> Call:
        return lambda batch_size, num_beams: captioner.caption(
            views[:batch_size], _options(num_beams), maps=maps, reliance=reliance
        )

    calls = {
        "maps_and_reliance": caption(None, True),
        "maps": caption(None, False),
        "captions_only": caption("none", False),
    }
    figures: dict[str, Any] = {"dtype": captioner.policy.reason, "num_threads": torch.get_num_threads()}
    for (batch_size, num_beams), seconds in _measure(calls, turns).items():
        rates = {kind: _summary([batch_size / value for value in values]) for kind, values in seconds.items()}
        figures[_setting_name(batch_size, num_beams)] = {"images_per_second": rates}
    return figures


def compare_with_peer(family: str, *, device: str = "auto", dtype: DtypeName = "auto", turns: int = 5) -> dict[str, Any]:
    """Convert a peer of the published size, check that greedy captions are equal in float32 on the CPU, and time both.

    The converted checkpoint uses `device` and `dtype`; the peer runs on the same device in float32 and in bfloat16. Raises
    DataError if transformers is missing, ConfigError for a device or dtype that is not available.
    """
    peer = random_peer(family)
    with tempfile.TemporaryDirectory() as temporary:
        source, folder = Path(temporary) / "source", Path(temporary) / "ours"
        save_peer(peer, source)
        convert_source(source, folder)
        exact = Captioner.load(folder, device="cpu", dtype="float32")
        views = _random_views(exact, max(BATCH_SIZES))
        pixels = torch.stack([view.pixels for view in views])  # (B, 3, height, width)
        results = exact.caption(views[:2], _options(1), maps="none", reliance=False)
        prompt = exact.config.prompt_encoder
        ids = () if prompt is None else prompt.default_ids
        expected = [exact.tokenizer.decode(row) for row in _generate(peer, pixels[:2], 1, ids).tolist()]
        equal = [result.captions[0].text for result in results] == expected
        del exact
        ours = Captioner.load(folder, device=device, dtype=dtype)
    target = choose_device(device)
    pixels = pixels.to(target)
    peer = peer.to(target)
    bfloat16_peer = random_peer(family, torch.bfloat16).to(target)
    calls: dict[str, Call] = {
        "ours": lambda batch_size, num_beams: ours.caption(views[:batch_size], _options(num_beams)),
        "float32": lambda batch_size, num_beams: _generate(peer, pixels[:batch_size], num_beams, ids),
        "bfloat16": lambda batch_size, num_beams: _generate(bfloat16_peer, pixels[:batch_size].bfloat16(), num_beams, ids),
    }
    figures: dict[str, Any] = {"dtype": ours.policy.reason, "equal_captions": equal}
    for (batch_size, num_beams), seconds in _measure(calls, turns).items():
        row: dict[str, Any] = {
            "images_per_second": {kind: batch_size / statistics.median(values) for kind, values in seconds.items()}
        }
        for kind in ("float32", "bfloat16"):
            ratios = [theirs / ours_seconds for theirs, ours_seconds in zip(seconds[kind], seconds["ours"], strict=True)]
            row[f"speedup_over_generate_in_{kind}"] = _summary(ratios)
        figures[_setting_name(batch_size, num_beams)] = row
    return figures


def _setting_name(batch_size: int, num_beams: int) -> str:
    return f"batch {batch_size}, " + (f"beam {num_beams}" if num_beams > 1 else "greedy")


def _summary(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _measure(calls: dict[str, Call], turns: int) -> dict[tuple[int, int], Seconds]:
    """Return the seconds of every call by batch size and beams; a turn makes each call once, and an extra first one warms up."""
    seconds: dict[tuple[int, int], Seconds] = {
        (batch_size, num_beams): {kind: [] for kind in calls} for batch_size in BATCH_SIZES for num_beams in NUM_BEAMS
    }
    for turn in tqdm(range(turns + 1), desc="turns", leave=False):
        for (batch_size, num_beams), kinds in seconds.items():
            for kind, call in calls.items():
                started = time.perf_counter()
                call(batch_size, num_beams)
                if turn:
                    kinds[kind].append(time.perf_counter() - started)
    return seconds


def _options(num_beams: int) -> GenerationOptions:
    decoding: dict[str, Any] = {"strategy": "beam", "num_beams": num_beams} if num_beams > 1 else {"strategy": "greedy"}
    return GenerationOptions(**decoding, max_words=400, max_new_tokens=NUM_TOKENS, min_new_tokens=NUM_TOKENS)


def _generate(peer: Any, pixels: torch.Tensor, num_beams: int, prompt: tuple[int, ...]) -> torch.Tensor:
    """Return the peer's tokens (B, T) on the CPU: the copy waits until the device has finished."""
    with torch.inference_mode():
        tokens: torch.Tensor = peer.generate(
            pixel_values=pixels, num_beams=num_beams, do_sample=False, max_new_tokens=NUM_TOKENS, min_new_tokens=NUM_TOKENS,
            **{name: value.to(pixels.device) for name, value in peer_inputs(peer, prompt, pixels.size(0)).items()},
        )  # fmt: skip
    return tokens.cpu()


def _random_views(captioner: Captioner, count: int) -> list[ImageView]:
    height, width = captioner.image_config.height, captioner.image_config.width
    generator = torch.Generator().manual_seed(0)
    return [
        ImageView(torch.randn(3, height, width, generator=generator), (width, height), Box(0, 0, width, height), "PNG", 1)
        for _ in range(count)
    ]
