"""Loading of training batches from tar shards on several ranks: every sample once per epoch, memory, images per second, waiting.

torchrun starts this module once per rank: python -m benchmarks loading.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.streaming import write_synthetic_shards
from corpus import open_dataset
from model import CaptionTokenizer, EncoderConfig, ImageConfig, ModelConfig
from training import PlannedStep, StepLoader, TrainConfig, TrainingData, running_ranks

_EDGE = 32  # pixels
_BATCH = 64  # images of all ranks
_EPOCHS = 2
_PARTS = 5  # of an epoch, after which memory is measured


def measure_loading(samples: int, ranks: int, workers: int, folder: Path | None = None) -> dict[str, Any]:
    """Write synthetic shards, load two epochs of them on several ranks, and compare what the ranks have loaded."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        data, results = Path(name) / "data", Path(name) / "results"
        data.mkdir()
        results.mkdir()
        write_synthetic_shards(data, samples, _small_jpeg)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m"]
        subprocess.run([*command, __name__, str(data), str(results), str(workers)], check=True)
        loaded = [json.loads((results / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(ranks)]
    figures: dict[str, Any] = {"samples": samples, "ranks": ranks, "workers per rank": workers, "equal": True}
    for epoch in range(_EPOCHS):
        counts = Counter(number for rank in loaded for number in rank["epochs"][epoch]["samples"])
        figures["equal"] &= len(counts) == samples and set(counts.values()) == {1}
        figures[f"epoch {epoch + 1}"] = {
            "different samples": len(counts),
            "loaded twice": sum(count > 1 for count in counts.values()),
            "images per second, all ranks": round(samples / max(rank["epochs"][epoch]["seconds"] for rank in loaded)),
            "mean wait per step, ms": " and ".join(f"{rank['epochs'][epoch]['wait']:.1f}" for rank in loaded),
            "memory of a rank and its workers, MB": "; ".join(
                " ".join(map(str, rank["epochs"][epoch]["memory"])) for rank in loaded
            ),
        }
    return figures


def _small_jpeg(rng: random.Random) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (_EDGE, _EDGE), tuple(rng.randrange(256) for _ in range(3))).save(file, "JPEG")
    return file.getvalue()


def _load(data: Path, results: Path, workers: int) -> None:
    """Load all epochs on this rank, and write what was loaded."""
    with running_ranks() as ranks:
        entries = open_dataset(str(data)).split("train")
        tokenizer = CaptionTokenizer.train(["image number 0123456789"], 300)
        network = ModelConfig(image=ImageConfig(height=_EDGE, width=_EDGE), encoder=EncoderConfig(patch_size=8))
        source = TrainingData(entries, tokenizer, network, None, num_views=1, captions_per_image=1, max_caption_tokens=40)
        loader = StepLoader({0: source}, TrainConfig(data=(str(data),), run="x", workers=workers), ranks)
        epochs = []
        for epoch in range(_EPOCHS):
            steps = [PlannedStep(number, 0, tuple(images)) for number, images in enumerate(source.plan(epoch, 0, _BATCH))]
            marks = {len(steps) * part // _PARTS for part in range(1, _PARTS + 1)}
            names: list[str] = []
            memory, wait = [], 0.0
            started = before = time.perf_counter()
            for number, loaded in enumerate(loader.load(steps, pin_memory=False), 1):
                wait += time.perf_counter() - before
                names += [key.partition(" ")[0] for part in loaded.parts if part.num_targets for key in part.image_keys]
                if number in marks:
                    memory.append(_memory())
                before = time.perf_counter()
            seconds = time.perf_counter() - started
            epochs.append({"samples": names, "seconds": seconds, "wait": 1000 * wait / len(steps), "memory": memory})
            ranks.barrier()
        (results / f"{ranks.rank}.json").write_text(json.dumps({"epochs": epochs}), encoding="utf-8")


def _memory() -> int:
    """Return the memory in MB of this process and its workers; pages that they share are counted once (Linux)."""
    processes = ["self", *(str(child.pid) for child in multiprocessing.active_children())]
    lines = [Path(f"/proc/{process}/smaps_rollup").read_text().splitlines() for process in processes]
    return round(sum(int(line.split()[1]) for text in lines for line in text if line.startswith("Pss:")) / 1000)


def add_loading_command(subparsers: Any) -> None:
    """Add `loading` to the subparsers of a command line."""
    loading = subparsers.add_parser("loading", help="training batches of tar shards on several ranks: once each, memory, waiting")
    loading.add_argument("--samples", type=int, default=100_000, metavar="N", help="synthetic samples (default: 100000)")
    loading.add_argument("--ranks", type=int, default=2, metavar="N", help="processes of torchrun (default: 2)")
    loading.add_argument("--workers", type=int, default=1, metavar="N", help="loading processes of each rank (default: 1)")
    loading.add_argument("--folder", type=Path, help="folder for temporary shards (default: the system's temporary folder)")
    loading.add_argument("--json", action="store_true", help="print the figures as JSON")
    loading.set_defaults(run=lambda options: measure_loading(options.samples, options.ranks, options.workers, options.folder))


if __name__ == "__main__":
    _load(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
