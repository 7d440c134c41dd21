"""What a model is trained to do, a file a task; to add one, write its file and name it in `TASKS`."""

from __future__ import annotations

from sublayer import config
from sublayer.errors import ConfigError, named
from sublayer.tasks.causal import Causal
from sublayer.tasks.classification import Classification
from sublayer.tasks.denoising import Denoising
from sublayer.tasks.embedding import Embedding
from sublayer.tasks.instructions import Instructions
from sublayer.tasks.masked import Masked
from sublayer.tasks.regression import Regression
from sublayer.tasks.span_corruption import SpanCorruption
from sublayer.tasks.tagging import Tagging
from sublayer.tasks.task import AnyTask, Task
from sublayer.tasks.translation import Translation

__all__ = ["TASKS", "AnyTask", "Task", "task_named", "task_of", "usual_task"]

TASKS: tuple[type[AnyTask], ...] = (
    Translation,
    Causal,
    Masked,
    SpanCorruption,
    Denoising,
    Regression,
    Classification,
    Tagging,
    Embedding,
    Instructions,
)
"""All tasks. Of several that a model can do the first is what it is usually for."""


def task_of(settings: config.Task) -> AnyTask:
    """The task that a recipe asks for."""
    return next(task(settings) for task in TASKS if task.kind is type(settings))


def task_named(name: str) -> type[AnyTask]:
    """The task that a recipe calls so.

    Raises:
        ConfigError: there is none.
    """
    return named({task.name(): task for task in TASKS}, name, ConfigError, f"there is no task '{name}'")


def usual_task(model: config.Model) -> type[AnyTask] | None:
    """What a model with this tree is usually for, where no recipe says it; None where that is nothing."""
    return next((task for task in TASKS if task.kind.suits(model)), None)
