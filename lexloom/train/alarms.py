"""Alarms: what goes wrong in training without an error, told once, with its cause and what has helped.

Nothing is stopped. Looked at with each evaluation, so that they cost nothing in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
from torch import Tensor

PLATEAU_FROM, PLATEAU_SHARE = 0.15, 0.97
CHANCE_FROM = 0.5
FIRST = 200  # steps before which no loss tells anything
REPEATED_SHARE = 0.05


class Alarms:
    """What was told already, and what to compare with.

    Args:
        steps: of the whole training.
        blind: part -> the loss of a guess that does not look at the text, such as word frequencies for masked LM; see `Objective.blind`.
    """

    def __init__(self, steps: int, blind: Mapping[str, float]) -> None:
        self.steps, self.blind = steps, dict(blind)
        self.told: set[str] = set()

    def look(self, step: int, losses: Mapping[str, float], gradients: Mapping[str, Tensor]) -> list[str]:
        """New alarms.

        Args:
            step: steps done. losses: mean of each part, on validation rows where there are any. gradients: of the step, by parameter.
        """
        found = [*self._plateaus(step, losses), *self._dead(gradients)]
        fresh = [(name, line) for name, line in found if name not in self.told]
        self.told |= {name for name, _ in fresh}
        return [line for _, line in fresh]

    def _plateaus(self, step: int, losses: Mapping[str, float]) -> Iterable[tuple[str, str]]:
        for part, loss in losses.items():
            blind = self.blind.get(part)
            if blind is None or loss < PLATEAU_SHARE * blind:
                continue
            binary = blind < 1.0  # two classes are often at chance for long; many never
            if step >= max(FIRST, (CHANCE_FROM if binary else PLATEAU_FROM) * self.steps):
                cause = "chance" if binary else "what frequencies alone give"
                yield (
                    f"plateau {part}",
                    f"{part} sits at {loss:.2f} after {step:,} of {self.steps:,} steps, {cause} being {blind:.2f}: the network does not "
                    "use the text yet. What has helped: initialization: mimetic, a lower learning_rate, a longer warmup, more steps",
                )

    @staticmethod
    def _dead(gradients: Mapping[str, Tensor]) -> Iterable[tuple[str, str]]:
        dead = [name for name, gradient in gradients.items() if not gradient.any()]
        if dead:
            names = ", ".join(dead[:3]) + (f" and {len(dead) - 3} more" if len(dead) > 3 else "")
            yield (
                "dead",
                f"no gradient reaches {names}: a head that no row of this step asks for, units that never fire, or weights not in use",
            )


def repeated(rows: Iterable[npt.NDArray[np.integer]]) -> float:
    """The share of rows that stand among the rows before them, token by token."""
    seen: set[bytes] = set()
    total = again = 0
    for row in rows:
        mark = np.ascontiguousarray(row, dtype=np.int32).tobytes()
        again += mark in seen
        total += 1
        seen.add(mark)
    return again / max(1, total)


def repetition(share: float, looked_at: int) -> str | None:
    """The alarm for a corpus that says everything twice, or None."""
    if share < REPEATED_SHARE:
        return None
    return (
        f"{share:.0%} of {looked_at:,} rows stand in the corpus more than once: the loss will look better than the model is. "
        "prepare: {dedup: {exact: true, near: true}} takes out copies, clean: {boilerplate: 0.3} what stands on every page"
    )
