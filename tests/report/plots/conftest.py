"""Reports to draw: a small crowd, a large one, one regime beside another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from privbench.report.crowd import Block, CrowdFacts, Load, Stage, Traffic
from privbench.report.report import Names, Report, Run, Target
from privbench.scoring.score import Pictures, Roc, Score


def _rate(seat: str, value: float, metric: str = "identification", blind: float = 0.002) -> Score:
    goal = "membership" if metric == "auc" else "reconstruction"
    low, high = max(value - 0.05, 0.0), min(value + 0.05, 1.0)
    return Score(goal, metric, seat, value, low, high, 200, blind=blind)


def _images(seat: str, channels: int = 1, shade: int = 90) -> Pictures:
    parts = (np.full((4, channels, 8, 8), shade + i, dtype=np.uint8) for i in range(3))
    return Pictures(seat, *parts)


@pytest.fixture(scope="session")
def rate() -> Callable[..., Score]:
    """Makes a score: seat, value, metric, blind."""
    return _rate


@pytest.fixture(scope="session")
def images() -> Callable[..., Pictures]:
    """Makes pictures: seat, channels, shade."""
    return _images


@pytest.fixture(scope="session")
def crowd() -> Callable[..., Report]:
    """Makes a report on a crowd: the first half of its devices hosts the first layer."""

    def make(count: int = 4, links: int | None = None) -> Report:
        names = [f"device-{i}" for i in range(count)]
        layer = ["a" if i < count / 2 else "b" for i in range(count)]
        pairs = [(one, other) for i, one in enumerate(names) for other in names[i + 1 :]][:links]
        facts = CrowdFacts(
            (Stage("in", "stem", 9), Stage("a", "body", 8), Stage("b", "body", 8), Stage("out", "tail", 3)),
            tuple(Block(name, where, 2, "output") for name, where in zip(names, layer, strict=True)),
            tuple(Load(name, 10.0, 20.0, 30.0, 40.0) for name in names),
            tuple(Traffic(*pair, 100.0 + 7 * i) for i, pair in enumerate(pairs)),
        )  # fmt: skip
        scores = [_rate(name, 0.9 - 0.8 * i / count) for i, name in enumerate(names)]
        return Report(
            Names("compare", "080-host", "digits", "mlp", "slicenet", "", "host", "ridge_decoder", "",
                  "reconstruction"),
            scores=(*scores, _rate("worst", 0.91), _rate("median", 0.5), _rate("best", 0.1)),
            target=Target(
                0.9, bytes_per_sample=34_939.61, accuracy_low=0.873, accuracy_high=0.923
            ),
            run=Run(splits={"non-members": 600}),
            crowd=facts,
            pictures=tuple(_images(name) for name in names[:6]),
        )  # fmt: skip

    return make


@pytest.fixture(scope="session")
def host(crowd: Callable[..., Report]) -> Report:
    return crowd()


@pytest.fixture(scope="session")
def lira(host: Report) -> Report:
    """A membership attack on another regime, with a curve."""
    curve = Roc("anyone", (0.001, 0.01, 0.1, 1.0), (0.0, 0.03, 0.2, 1.0), (0.0, 0.01, 0.1, 1.0),
                (0.02, 0.06, 0.3, 1.0), 0.016)  # fmt: skip
    return replace(
        host,
        names=Names(
            "compare", "020-lira", "digits", "mlp", "centralized", "", "released", "lira", "", "membership"
        ),
        scores=(_rate("anyone", 0.6, "auc", 0.5),),
        target=Target(0.955, bytes_per_sample=6.65),
        curves=(curve,),
        crowd=None,
        pictures=(),
    )  # fmt: skip
