"""Signs that a run goes wrong, and what to do: steps that are not finite, too little memory or disk, one caption for all."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch.distributed as dist

from evaluation import CaptionScores
from model import CaptionerError, is_out_of_memory
from training.config import TrainConfig

MAX_SKIPPED = 10  # steps in a row without a finite loss and gradient, after which a run ends
MIN_DISTINCT = 0.1  # share of distinct captions: below, nearly all images have one caption
_COMMON_SHARE = 0.5  # of the images: one caption for so many is a warning, too
_MIN_IMAGES = 20  # fewer may well be alike


class DivergedError(CaptionerError):
    """The losses of a run are no numbers any more."""


class StepGuard:
    """Counts steps that were skipped because their loss or gradient is not finite: no weight has changed by them."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self.num_skipped = 0  # in a row

    def check(self, loss: float, grad_norm: float, step: int) -> bool:
        """Return whether a step may change the weights. Raises DivergedError after too many that may not."""
        if math.isfinite(loss) and math.isfinite(grad_norm):
            self.num_skipped = 0
            return True
        self.num_skipped += 1
        if self.num_skipped >= MAX_SKIPPED:
            config = self._config
            remedies = [f"--lr below {config.peak_lr:g}"]
            if config.max_grad_norm == 0:
                remedies.append("--max-grad-norm 1")
            if config.dtype != "float32":
                remedies.append("--dtype float32")
            raise DivergedError(
                f"loss or gradient was not finite in {self.num_skipped} steps in a row, up to step {step + 1} (loss {loss}, "
                f"gradient norm {grad_norm}); these steps changed no weight, and {config.run} is as it was before them. Start a "
                f"new run from {config.run}/last with {' or '.join(remedies)}, or look at the data: python -m corpus check"
            )
        return False


def failure_message(config: TrainConfig, step: int, saved_step: int | None, error: BaseException) -> str:
    """Return what to do after an error of a step that is no mistake of this program, "" if it may be one.

    `saved_step` is that of the last state, None if there is none.
    """
    saved = "no state has been saved yet" if saved_step is None else f"the state after step {saved_step} is saved"
    again = "Start again" if saved_step is None else f"Continue with python train.py --run {config.run} --resume"
    if isinstance(error, dist.DistError) or "gloo" in str(error):
        return (
            f"another rank has ended in step {step + 1}; its own message says why, and {saved}. Continue with the same torchrun "
            "command, or let it do so itself: --max-restarts 3"
        )
    if not is_out_of_memory(error):
        return ""
    remedies = [f"--accumulate {2 * config.accumulate} (half the images at a time)"]
    if not config.gradient_checkpointing:
        remedies.append("--gradient-checkpointing")
    if config.device != "cpu" and not config.fsdp:
        remedies.append("--fsdp on several GPUs")
    return (
        f"out of memory in step {step + 1} with {config.batch_size} images; {saved}. {again} "
        f"and one of: {'; '.join(remedies)} ({_first_line(error)})"
    )


def disk_message(run: str, step: int, saved_step: int, error: OSError) -> str:
    """Return what to do if a state could not be written."""
    return (
        f"at step {step} a state could not be written ({error.strerror or error}); {run} has that of step {saved_step}. Free "
        "space there: the run goes on, and tries again at its next save"
    )


def collapse_alarm(config: TrainConfig, captions: Mapping[str, str], scores: CaptionScores) -> str:
    """Return a warning if nearly all images have one caption, with what helps in this run; "" without such a sign."""
    if len(captions) < 2:
        return ""
    counts: dict[str, int] = {}
    for text in captions.values():
        counts[text] = counts.get(text, 0) + 1
    common, count = max(counts.items(), key=lambda entry: entry[1])
    is_common = len(captions) >= _MIN_IMAGES and count > _COMMON_SHARE * len(captions)
    if scores.distinct >= MIN_DISTINCT and not is_common:
        return ""
    remedies = []
    if not config.init:
        remedies.append("start from a checkpoint (--init model/default)")
    if config.shuffle_images:
        remedies.append("leave out --shuffle-images, which takes the images away")
    remedies.append(f"lower --lr (it is {config.peak_lr:g})")
    if config.freeze == "encoder" and not config.lora_rank:
        remedies.append("train more than the decoder (--freeze none)")
    remedies.append("check that images and captions match (python -m corpus show DATA page.html)")
    return (
        f"  WARNING: {count} of {len(captions)} images have the caption {common!r}: the network hardly looks at them. What "
        f"helps: {'; '.join(remedies)}"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
