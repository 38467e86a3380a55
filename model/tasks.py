"""Tasks of a checkpoint that follows prompts: their names, the prompt of each, and what the answer is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.errors import ConfigError

Output = Literal["text", "boxes", "quads", "proposals"]
INPUT = "{input}"


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskConfig:
    """A task by the name that requests use, and the prompt that the network was trained with.

    `input` is what the prompt contains at "{input}"; `output` is a text, or texts with a rectangle ("boxes") or four corners
    ("quads") each, or rectangles alone ("proposals").
    """

    name: str
    prompt: str
    input: Literal["none", "text", "region"] = "none"
    output: Output = "text"

    def __post_init__(self) -> None:
        if (self.input != "none") != (INPUT in self.prompt):
            raise ConfigError(f"the prompt of task {self.name!r} is {self.prompt!r}; it must contain {INPUT} if it has an input")


def find_task(tasks: tuple[TaskConfig, ...], name: str) -> TaskConfig | None:
    """Return the task of a name, the first for ""; None if the checkpoint has no tasks and none is named.

    Raises ConfigError, which names those that it has.
    """
    if not tasks and not name:
        return None
    if not tasks:
        raise ConfigError(f"task is {name[:80]!r}; this checkpoint has one task, which needs no name: leave it out")
    task = next((task for task in tasks if task.name == name), tasks[0] if not name else None)
    if task is None:
        raise ConfigError(f"task is {name[:80]!r}; this checkpoint has {', '.join(task.name for task in tasks)}")
    return task


def dense_tasks(tasks: tuple[TaskConfig, ...]) -> tuple[str, ...]:
    """Return the names of the tasks that describe and locate everything in an image."""
    return tuple(task.name for task in tasks if task.input == "none" and task.output == "boxes")
