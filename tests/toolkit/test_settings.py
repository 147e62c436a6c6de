"""Settings of attacks that nothing could come of are refused when the attack is built."""

from __future__ import annotations

import math

import pytest

from attacks.membership.boundary import Boundary
from attacks.membership.gradient_alignment import GradientAlignment
from attacks.membership.gradient_classifier import GradientClassifier
from attacks.membership.loss_trajectory import LossTrajectory
from attacks.membership.quantile_regression import QuantileRegression
from attacks.membership.recurrence import Recurrence
from attacks.membership.rmia import Rmia
from attacks.membership.white_box import WhiteBox
from privbench.contract import Attack, Budget
from privbench.errors import UsageError


@pytest.mark.parametrize(
    ("attack", "name", "value", "said"),
    [
        (Boundary, "copies", 0, "copies=0; expected at least 1"),
        (Boundary, "levels", (), r"levels=\[\]; expected numbers above 0"),
        (Boundary, "levels", (0.1, -0.1), r"levels=\[0.1, -0.1\]"),
        (Boundary, "levels", 0.1, r"levels=0.1; .*levels=\[0.1,0.3\]"),
        (GradientAlignment, "ridge", 0.0, "ridge=0.0; expected a number above 0"),
        (GradientClassifier, "references", 3, "references=3; expected at least 4"),
        (LossTrajectory, "epochs", -1, "epochs=-1; expected at least 1"),
        (QuantileRegression, "rate", math.nan, "rate=nan; expected a number above 0"),
        (Recurrence, "rows", 0, "rows=0; expected at least 1"),
        (Rmia, "gamma", 0.0, "gamma=0.0; expected a number above 0"),
        (WhiteBox, "models", 0, "models=0; expected at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(
    attack: type[Attack], name: str, value: object, said: str
) -> None:
    with pytest.raises(UsageError, match=f"attack.{said}"):
        attack(**{name: value})


def test_nobody_spends_less_than_nothing() -> None:
    with pytest.raises(UsageError, match=r"budget.shadow_models=null; expected a whole number"):
        Budget(shadow_models=None)
    with pytest.raises(UsageError, match=r"budget.queries=-1; .*or null"):
        Budget(queries=-1)
    assert Budget(queries=0).queries == 0
