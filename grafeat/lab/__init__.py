"""Does merging pay? Tasks, measures and what is compared on them; `grafeat.compare` runs it."""

from grafeat.lab.measures import Measured, measured
from grafeat.lab.task import MEASURES, Task

__all__ = ["MEASURES", "Measured", "Task", "measured"]
