"""Losses of training, as they are told."""

import pytest
import torch

from privbench.regimes.curve import POINTS, Curve, mean_of


def curve(*losses):
    made = Curve()
    for loss in losses:
        made.add(None if loss is None else torch.tensor(loss, requires_grad=True))
    return made


def test_a_short_curve_is_told_step_by_step_and_lost_steps_are_left_out():
    assert curve(3.0, None, 1.0).points() == (3.0, 1.0)
    assert curve().points() == ()


def test_a_long_one_is_told_as_means_over_equal_spans():
    points = curve(*[float(step // 4) for step in range(4 * POINTS)]).points()
    assert points == tuple(float(step) for step in range(POINTS))


def test_clients_side_by_side_are_averaged_step_by_step():
    assert mean_of([curve(1.0, 2.0, 6.0), curve(3.0)]) == pytest.approx((2.0, 2.0, 6.0))
    assert mean_of([]) == ()
