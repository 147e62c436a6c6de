"""How long likelihood ratios of many records take, from the answers of many shadow models to scores.

``python benchmarks/scoring.py``: 60,000 records, 10 classes, 256 shadow models, one thread. Answers are
float32 logits, given model by model as ``toolkit.evidence`` gets them; the time of the models is not in it.
"""

from __future__ import annotations

import resource
import statistics
import time
from dataclasses import dataclass

import torch
from figure import Figure

from privbench.toolkit.densities import confidence, log_ratio

RECORDS, MODELS, CLASSES, TURNS = 60_000, 256, 10, 3
LIMIT = 2.0  # s


@dataclass(frozen=True)
class Scoring:
    """Medians over turns."""

    seconds: float
    processor: float  # s
    mebibytes: float  # that the process grew by


def measure(records: int = RECORDS, models: int = MODELS, turns: int = TURNS) -> Scoring:
    """Time it on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured(records, models, turns)
    finally:
        torch.set_num_threads(before)


def _measured(records: int, models: int, turns: int) -> Scoring:
    rng = torch.Generator().manual_seed(0)
    y = torch.randint(CLASSES, (records,), generator=rng)
    member = torch.rand(models, records, generator=rng) < 0.5
    answers = [3 * torch.randn(records, CLASSES, generator=rng) for _ in range(8)]  # in turn
    target = torch.randn(records, CLASSES, generator=rng)
    confidence(target[:10], y[:10])
    clocks, spent, before = [], [], _peak()
    for _ in range(turns):
        clock, processor = time.perf_counter(), time.process_time()
        shadows = torch.stack([confidence(answers[i % 8], y) for i in range(models)])
        log_ratio(confidence(target, y), shadows, member)
        clocks.append(time.perf_counter() - clock)
        spent.append(time.process_time() - processor)
    return Scoring(statistics.median(clocks), statistics.median(spent), _peak() - before)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def figures() -> tuple[Figure, ...]:
    """What is promised."""
    found = measure()
    return (
        Figure(
            what=f"likelihood ratios of {RECORDS:,} records against {MODELS} shadow models",
            asked=f"under {LIMIT:g} s",
            value=found.seconds,
            unit="s",
            met=found.seconds < LIMIT,
            note=f"from logits of {CLASSES} classes to scores, median of {TURNS}; processor time "
            f"{found.processor:.2f} s; {found.mebibytes:.0f} MiB of memory more",
            digits=2,
        ),
    )


if __name__ == "__main__":
    print(measure())
