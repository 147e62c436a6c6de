"""Membership inference where the right figure is known: Gaussian oracles, and small networks."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from leave_one_out import SCORES, Ensemble, ensemble, strength
from ledger import note
from scipy.stats import norm
from sklearn.datasets import load_digits
from torch.nn import functional as F

from privbench.contract import Net, Recipe, Samples, Spec
from privbench.data.cifar10 import Cifar10
from privbench.data.filed import Filed
from privbench.data.mnist import FashionMnist
from privbench.scoring.statistics import auc, tpr_at
from privbench.toolkit.densities import confidence, log_ratio

pytestmark = [pytest.mark.golden, pytest.mark.timeout(4 * 3600)]

MUS = (0.5, 1.0, 2.0, 3.0)
LEAST = 0.001  # false positive rate
AREAS = {0.5: 0.6382, 1.0: 0.7602, 2.0: 0.9214, 3.0: 0.9831}
SHARES = {0.5: 0.0048, 1.0: 0.0183, 2.0: 0.1378, 3.0: 0.4641}
RESNET = "Carlini 2022, LiRA online, ResNet-18, CIFAR-10"
RESNET_SETTING = "50,000 records (25,000 in), no augmentation, SGD 0.1, batch 128, 50 epochs"
ADAM = Spec("torch.optim.Adam", {"lr": 1e-3})


@pytest.mark.parametrize("mu", MUS)
def test_statistics_of_the_gaussian_oracle(mu: float) -> None:
    start, each = time.perf_counter(), 1_000_000
    rng = np.random.default_rng(int(10 * mu))
    scores, member = rng.standard_normal(2 * each), np.arange(2 * each) < each
    scores[member] += mu
    _oracle(f"statistics, n = {each:,} a side", mu, scores, member, start)


@pytest.mark.parametrize("mu", MUS)
def test_likelihood_ratios_of_gaussian_logits(mu: float) -> None:
    start, models, records, blocks = time.perf_counter(), 1024, 2_000, 25
    rng = torch.Generator().manual_seed(int(10 * mu))
    scores, inside = [], []
    for _ in range(blocks):
        hardness = 2 * torch.randn(records, generator=rng)
        member = torch.rand(models + 1, records, generator=rng) < 0.5
        said = hardness + mu * member + torch.randn(models + 1, records, generator=rng)
        logits = torch.stack([said, torch.zeros_like(said)], dim=-1)
        found = confidence(logits, torch.zeros(records, dtype=torch.int64))
        scores.append(log_ratio(found[0], found[1:], member[1:], "global"))
        inside.append(member[0])
    setting = f"likelihood-ratio engine, {models} shadow models, {records * blocks:,} records"
    _oracle(setting, mu, torch.cat(scores).numpy(), torch.cat(inside).numpy(), start)


def _oracle(setting: str, mu: float, scores: np.ndarray, member: np.ndarray, start: float) -> None:
    """Both figures within four standard errors of the exact ones, which round to the known ones."""
    each = len(scores) / 2
    threshold = norm.isf(LEAST)
    exact = {"AUC": norm.cdf(mu / math.sqrt(2)), "TPR at 0.1 %": norm.sf(threshold - mu)}
    known = {"AUC": AREAS[mu], "TPR at 0.1 %": SHARES[mu]}
    found = {"AUC": auc(scores, member), "TPR at 0.1 %": tpr_at(scores, member, LEAST)}
    slope = norm.pdf(threshold - mu) / norm.pdf(threshold)
    share = exact["TPR at 0.1 %"]
    errors = {
        "AUC": math.sqrt(exact["AUC"] * (1 - exact["AUC"]) / each),
        "TPR at 0.1 %": math.sqrt((share * (1 - share) + slope**2 * LEAST * (1 - LEAST)) / each),
    }
    for metric, value in found.items():
        assert exact[metric] == pytest.approx(known[metric], abs=6e-5)
        more = 4 * errors[metric]
        note(
            f"Gaussian oracle, mu {mu:g}, {metric}",
            setting,
            published=known[metric],
            replica=value,
            low=exact[metric] - more,
            high=exact[metric] + more,
            n=int(2 * each),
            seconds=time.perf_counter() - start,
            remark="low and high: four standard errors",
        )
    for metric, value in found.items():
        assert value == pytest.approx(exact[metric], abs=4 * errors[metric])


def _noted(
    what: str, setting: str, found: Ensemble, names: tuple[str, ...], targets: int, *,
    area: float, rate: float, share: float, tried: tuple[float, float], start: float,
    remark: str = "trial and target have the same recipe",
) -> None:  # fmt: skip
    """Write down the strongest of some presets and everything beside it, then ask it.

    Args:
        area: least AUC.
        rate, share: least true positive rate at a false positive rate.
        tried: AUC, and rate in %, that a plain script found in a trial.
    """
    all_of = {name: strength(found, name, targets, (rate, LEAST)) for name in SCORES}
    best = max(names, key=lambda name: all_of[name].auc)
    sharpest = max(names, key=lambda name: all_of[name].tpr[rate])
    learned, new = found.accuracies()
    seconds, models = time.perf_counter() - start, len(found.member) - 1
    beside = "; ".join(f"{name} {one.words()}" for name, one in all_of.items())
    around = (
        f"accuracy {learned:.3f} in, {new:.3f} out; standard deviation over targets of the AUC "
        f"{all_of[best].sd:.3f}; {beside}; low is for ours; {remark}"
    )
    setting = f"{setting}, {models} shadow models, mean of {targets} leave-one-out targets"
    note(
        f"{what}, AUC", setting, published=None, ours=all_of[best].auc, low=area, n=targets,
        seconds=seconds, remark=f"{best}; a plain script had {tried[0]}; {around}",
    )  # fmt: skip
    note(
        f"{what}, TPR at {100 * rate:g} %, %", setting, published=None,
        ours=100 * all_of[sharpest].tpr[rate], low=100 * share, n=targets, seconds=seconds,
        remark=f"{sharpest}; a plain script had {tried[1]}; {around}",
    )  # fmt: skip
    assert all_of[best].auc >= area
    assert all_of[sharpest].tpr[rate] >= share


def _some(samples: Samples, count: int) -> Samples:
    return samples[torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))[:count]]


def _training(kind: type[Filed], root: str) -> Samples:
    """The official training set."""
    records = kind(root=root, split="official").load()
    assert records.parts is not None
    return records.samples[records.parts == 0]


def _mlp(*widths: int) -> Recipe:
    return Recipe(Net(Spec("privbench.models.mlp.Mlp", {"widths": widths})), ADAM, 100, 32)


def _digits() -> Samples:
    bunch = load_digits()
    x = torch.tensor(bunch.data / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    return Samples(x, torch.tensor(bunch.target))


def test_all_digits() -> None:
    start = time.perf_counter()
    found = ensemble(_digits(), _mlp(64, 128, 10), 129)
    _noted(
        "Carlini 2022, LiRA online, global variance, digits",
        "1,797 records (898 in), MLP 64-128-10, 100 epochs",
        found, ("lira",), 64,
        area=0.60, rate=0.01, share=0.055, tried=(0.605, 7.4), start=start,
    )  # fmt: skip
    assert strength(found, "loss_threshold", 64, ()).auc == pytest.approx(0.52, abs=0.01)


def test_400_digits() -> None:
    start, samples = time.perf_counter(), _some(_digits(), 400)
    _noted(
        "Carlini 2022, LiRA online, digits",
        "400 records (200 in), MLP 64-128-10, 100 epochs",
        ensemble(samples, _mlp(64, 128, 10), 64), ("lira",), 8,
        area=0.71, rate=0.01, share=0.085, tried=(0.740, 12.7), start=start,
    )  # fmt: skip


def test_1000_images_of_clothes(root: str) -> None:
    start = time.perf_counter()
    samples = _some(_training(FashionMnist, root), 1000)
    samples = Samples(F.avg_pool2d(samples.x, 2), samples.y)
    _noted(
        "Carlini 2022, LiRA online, Fashion-MNIST pooled to 14x14",
        "1,000 records (500 in), MLP 196-64-10, 100 epochs",
        ensemble(samples, _mlp(196, 64, 10), 64), ("lira",), 8,
        area=0.73, rate=0.01, share=0.10, tried=(0.741, 13.2), start=start,
    )  # fmt: skip


def test_a_cnn_on_2000_photographs(root: str) -> None:
    start = time.perf_counter()
    samples = _some(_training(Cifar10, root), 4000)
    shape = {"channels": 3, "size": 32, "convolutions": (16, 32)}
    adam = Spec("torch.optim.Adam", {"lr": 1.3e-3})  # brings accuracies near those of the script
    recipe = Recipe(Net(Spec("privbench.models.lenet.LeNet5", shape)), adam, epochs=12, batch=16)
    found = ensemble(samples, recipe, 17)
    _noted(
        "Likelihood ratios, the best preset, CIFAR-10",
        "4,000 records (2,000 in), LeNet-5 of 16 and 32 maps, Adam 0.0013, batch 16, 12 epochs",
        found, tuple(name for name in SCORES if name != "loss_threshold"), 8,
        area=0.70, rate=0.01, share=0.04, tried=(0.707, 4.6), start=start,
        remark="that script attacked one target, another CNN of accuracy 0.63 in and 0.43 out; at rate "
        "0.001, 0.59 in and 0.41 out, area 0.695 and 5.8 % were found",
    )  # fmt: skip


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="trains 16 ResNets: needs a CUDA device")
def test_a_resnet18_on_25000_photographs(root: str) -> None:
    start = time.perf_counter()
    momentum = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    recipe = Recipe(
        Net(Spec("resnet18.resnet18")), Spec("torch.optim.SGD", momentum), epochs=50, batch=128,
        decay="linear",
    )  # fmt: skip
    found = ensemble(_training(Cifar10, root), recipe, 16, "cuda")
    _noted(
        RESNET, RESNET_SETTING, found, ("lira",), 16,
        area=0.65, rate=LEAST, share=0.031, tried=(0.670, 4.6), start=start,
    )  # fmt: skip
