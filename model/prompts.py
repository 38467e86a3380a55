"""The prompt of a request, for checkpoints that have tasks: which task it is, and the ids that the prompt encoder reads.

Coordinates are tokens: a bin of the image's width or height each (Xiao et al. 2024, section 3.2).
"""

from __future__ import annotations

import math

from model.config import ModelConfig, TaskConfig
from model.errors import ConfigError, TextError
from model.requests import CaptionRequest
from model.tasks import INPUT, find_task
from model.tokenizer import CaptionTokenizer


def task_of(config: ModelConfig, request: CaptionRequest) -> TaskConfig | None:
    """Return the task of a request, None if the checkpoint has none. Raises ConfigError if its input is missing or not needed.

    A region without a task is described, by the first task that has a region as its input.
    """
    name, text = (request.options.task, request.options.task_input) if request.options is not None else ("", "")
    if not name and request.region is not None:
        name = next((task.name for task in config.tasks if task.input == "region"), "")
    task = find_task(config.tasks, name)
    required = "none" if task is None else task.input
    if required == "region" and request.region is None:
        raise ConfigError(f"task is {name!r}, which describes a part of the image; send regions, too")
    if task is not None and required != "region" and request.region is not None:
        raise ConfigError(f"task is {task.name!r}, which describes the whole image; leave the regions or the task out")
    if required == "text" and not text.strip():
        raise ConfigError(f"task_input is empty; task {name!r} needs the text that it is about")
    if required != "text" and text:
        raise ConfigError(f"task_input is {text[:80]!r}, but {f'task {task.name!r}' if task else 'this checkpoint'} needs none")
    return task


def prompt_ids(
    config: ModelConfig, tokenizer: CaptionTokenizer, request: CaptionRequest, num_image_tokens: int
) -> tuple[int, ...]:
    """Return the ids of a request's prompt, () if the checkpoint has no prompts.

    Raises ConfigError, and TextError for a text that is too long.
    """
    task, prompt = task_of(config, request), config.prompt_encoder
    if task is None or prompt is None:
        return ()
    before, _, after = task.prompt.partition(INPUT)
    if task.input == "region":
        ids = [*tokenizer.encode(before), *location_ids(config, request), *tokenizer.encode(after)]
    else:
        text = request.options.task_input.strip() if request.options is not None else ""
        ids = tokenizer.encode(task.prompt.replace(INPUT, text))
    limit = prompt.max_positions - num_image_tokens - 2
    if len(ids) > limit:
        raise TextError(
            f"task_input makes a prompt of {len(ids)} tokens; this checkpoint has room for {limit}: send a shorter text"
        )
    return (prompt.bos_token_id, *ids, prompt.eos_token_id)


def location_ids(config: ModelConfig, request: CaptionRequest) -> tuple[int, ...]:
    """Return the ids of the request's region: the bins of its left, upper, right and lower edge. Raises ConfigError."""
    region, prompt = request.region, config.prompt_encoder
    assert region is not None, "task_of requires it"
    assert request.view is not None, "a region is that of an image"
    assert prompt is not None, "only prompts contain regions"
    size = request.view.source_size
    edges = zip((region.x0, region.y0, region.x1, region.y1), (*size, *size), strict=True)
    bins = [math.floor(edge / (side / prompt.num_locations)) for edge, side in edges]
    return tuple(prompt.first_location_id + min(max(index, 0), prompt.num_locations - 1) for index in bins)
