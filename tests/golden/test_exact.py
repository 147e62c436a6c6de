"""What one sample's gradient tells without any search: the sample itself, and its label."""

from __future__ import annotations

import time

import pytest
import torch
from federated import server
from ledger import note
from sklearn.datasets import load_digits

from attacks.reconstruction.analytic import Analytic
from privbench.contract import Net, ReconstructionGuess, Samples, Spec
from privbench.toolkit.labels import label_counts
from privbench.toolkit.updates import observed

pytestmark = pytest.mark.golden

VICTIMS, NETS = 500, 3
LINEAR = Spec("privbench.models.mlp.Mlp", {"widths": (64, 10)})
ZHU = Spec("privbench.models.lenet_zhu.LeNetZhu", {"channels": 1, "size": 8})


def _digits() -> Samples:
    digits = load_digits()
    x = torch.as_tensor(digits.images, dtype=torch.float32)[:, None] / 16
    return Samples(x, torch.as_tensor(digits.target))


def _net(spec: Spec, seed: int) -> Net:
    return Net(spec).initialised(torch.Generator().manual_seed(seed))


def test_one_linear_layer_with_a_bias_gives_one_sample_away() -> None:
    start, digits = time.perf_counter(), _digits()
    worst = 0.0
    for seed in range(NETS):
        view = server(_net(LINEAR, seed), digits[:VICTIMS], digits[VICTIMS:])
        guess = Analytic().run(view, torch.Generator().manual_seed(seed))
        assert isinstance(guess, ReconstructionGuess)
        worst = max(worst, float((guess.x - digits.x[guess.rows[:, 1]]).abs().max()))
    note(
        "Phong 2017, analytic, one linear layer with bias, one sample, largest error",
        "digits, 64-10, 500 samples, 3 initial weights",
        published=0.0,
        replica=worst,
        high=1e-5,
        n=NETS * VICTIMS,
        seconds=time.perf_counter() - start,
        remark=f"exact up to rounding: {worst:.1e} of the range",
    )
    assert worst < 1e-5


def test_the_label_of_one_sample_is_read_off() -> None:
    start, digits = time.perf_counter(), _digits()
    assert digits.y is not None
    right = 0
    for seed in range(NETS):
        net = _net(ZHU, seed)
        module = net.module()
        for known in observed(server(net, digits[:VICTIMS], digits[VICTIMS:])):
            counts = label_counts(known, module, digits[VICTIMS:], 1)
            right += counts is not None and int(counts.argmax()) == int(digits.y[known.rows])
    share = 100 * right / (NETS * VICTIMS)
    note(
        "Zhao 2020, iDLG, label of one sample, %",
        "digits, LeNet (Zhu), 500 samples, 3 initial weights",
        published=100.0,
        replica=share,
        low=100.0,
        high=100.0,
        n=NETS * VICTIMS,
        seconds=time.perf_counter() - start,
    )
    assert share == 100
