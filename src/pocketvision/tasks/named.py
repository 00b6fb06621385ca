"""The tasks by name."""

from ..errors import TrainingError, nearest
from . import Task
from .classification import Classification
from .detection import Detection
from .segmentation import Segmentation

TASKS: dict[str, type[Task]] = {"classify": Classification, "detect": Detection, "segment": Segmentation}


def task_named(name: str) -> Task:
    """The task that a data set or a run calls ``name``. Raises TrainingError for a name of no task."""
    if name not in TASKS:
        raise TrainingError(f"the task {name!r} is unknown to this version; {nearest(name, TASKS)}")
    return TASKS[name]()
