"""`train: {budget: 2h}`: as many steps as fit into a time, chosen once by timing a few, and written down so that a resumed run keeps them.

Steps, evaluations and the time that is gone already (compiling, above all) are measured; the schedule is then laid over the steps that
fit. A machine that gets slower or faster on the way is met once more where the rate begins to fall (`schedule: wsd`): what is left of the
time decides how many steps the fall takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median

from lexloom import files
from lexloom.train.optim import rate
from lexloom.train.parallel import World
from lexloom.train.settings import TrainConfig

TIMED_STEPS, TIMED_SECONDS = 12, 20.0
RESERVE = 0.01
"""Share of the time kept for checkpoints and the end of the stage."""
FILE = "budget.json"


@dataclass(frozen=True)
class Plan:
    """What was decided.

    Attributes:
        seconds: the time given. steps: of the whole training. step_seconds: of a step, evaluations spread over all of them.
        fall: the step from which the rate falls, once that was decided anew; None before. first: the steps planned until then.
    """

    seconds: float
    steps: int
    step_seconds: float
    fall: int | None = None
    first: int | None = None

    def save(self, folder: Path) -> None:
        """Writes `budget.json`."""
        files.write_json(folder / FILE, {"format": files.FORMAT, **asdict(self)})

    def falls_at(self, step: int, config: TrainConfig) -> bool:
        """Whether the rate begins to fall after this step, and how long has not been decided yet."""
        open_end = self.fall is None and config.schedule == "wsd" and step < self.steps
        return open_end and step >= (1 - config.decay) * self.steps


def saved(folder: Path) -> Plan | None:
    """The plan of an earlier start, if there is one."""
    path = folder / FILE
    if not path.is_file():
        return None
    found = files.read_json(path, kind="time budget")
    files.check_format(found, path)
    return Plan(found["seconds"], found["steps"], found["step_seconds"], found["fall"], found["first"])


def decided(folder: Path, world: World, make: Callable[[], Plan]) -> Plan:
    """The plan of the first process, which writes it down, in all."""
    if world.first:
        make().save(folder)
    world.wait()
    found = saved(folder)
    assert found is not None
    return found


def rates(config: TrainConfig, plan: Plan | None, steps: int) -> Callable[[int], float]:
    """The learning rate by step of a training of so many steps; where a plan was made twice, each part by its own."""
    if plan is None or plan.fall is None or plan.first is None:
        return lambda step: rate(config, step, steps)
    fall, first, end = plan.fall, plan.first, plan.steps
    falling = config.model_copy(update={"decay": (end - fall) / end})
    return lambda step: rate(config, step, first) if step < fall else rate(falling, step, end)


def given(config: TrainConfig) -> float:
    """The seconds that a recipe gives, from now on."""
    return config.budget or seconds_until(str(config.until), datetime.now())


def seconds_until(clock: str, now: datetime) -> float:
    """Seconds to the next time a clock shows `clock`, `HH:MM`."""
    hour, minute = (int(part) for part in clock.split(":"))
    then = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return (then if then > now else then + timedelta(days=1)).timestamp() - now.timestamp()


def timed(step: Callable[[], object], more: Callable[[bool], bool] = bool) -> float:
    """Seconds of one step, the median of a dozen or of as many as twenty seconds take; the first two are not counted.

    Args:
        more: asked before each step, given whether this process would make one: several all make the same number.
    """
    found: list[float] = []
    began = time.perf_counter()
    while more(len(found) < TIMED_STEPS + 2 and (len(found) < 4 or time.perf_counter() - began < TIMED_SECONDS)):
        start = time.perf_counter()
        step()
        found.append(time.perf_counter() - start)
    return median(found[2:])


def plan(seconds: float, gone: float, step_seconds: float, evaluation_seconds: float, evaluations: int) -> Plan:
    """How many steps fit: one at least.

    Args:
        gone: seconds spent already. evaluation_seconds: of one of `evaluations` that the training is going to make.
    """
    left = seconds * (1 - RESERVE) - gone - evaluations * evaluation_seconds
    steps = max(1, int(left / step_seconds))
    return Plan(seconds, steps, step_seconds + evaluations * evaluation_seconds / steps)


def again(old: Plan, step: int, spent: float, decay: float) -> Plan:
    """The plan at the step where the rate begins to fall: what is left of the time, at the speed so far, gives the rest of the steps.

    The fall keeps between half and twice the steps it was to have.
    """
    speed = spent / max(1, step)
    meant = max(1, round(decay * old.steps))
    rest = int((old.seconds * (1 - RESERVE) - spent) / speed)
    return Plan(old.seconds, step + min(max(rest, (meant + 1) // 2), 2 * meant), speed, step, old.steps)
