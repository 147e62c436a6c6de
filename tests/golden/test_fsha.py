"""Feature-space hijacking against the figure of its paper, through the harness: regime, wire and actor."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import ledger
import pytest

from privbench.compose.launch import one
from privbench.compose.plans import Given
from privbench.compose.words import Words
from privbench.contract import Net, Spec
from privbench.experiment import run

pytestmark = [pytest.mark.golden, pytest.mark.timeout(2 * 3600)]

SEEDS = 3
HIGH = 0.020
ADAM = ("++regime.optimizer=torch.optim.Adam", "++regime.optimizer_args={betas: [0.5, 0.999]}")
SETTING = ("regime=split", "threat=split_server_active", "attack=fsha", "data=mnist")
SIZES = (
    "data.split=official",  # public are the test images
    "++regime.stem=2",
    "++regime.batch=64",
    "++regime.epochs=2",  # 1,876 iterations
    "++regime.lr=0.002",
    "++regime.decay=linear",
    "capture.every=4",
    "++threat.steps=last:16",  # 1,024 images, those of the last iterations
    "victims=1000",
    "device=cpu",
    "report.images=false",
)


def _mse(seed: int, root: str, folder: Path) -> float:
    """Mean squared error of the images of the last iterations, in [-1, 1] as in the paper."""
    words = (*SETTING, *ADAM, *SIZES, f"data.root={root}", f"seed={seed}", f"out={folder}")
    plan, _ = one(Words(words), Given(model=Net(Spec("hijacked.Hijacked"))))
    report = run(replace(plan, debug=True))
    (found,) = [score.value for score in report.scores if score.metric == "mse"]
    return 4 * float(found)


def test_hijacked_features_tell_digits(root: str, tmp_path: Path) -> None:
    started = time.perf_counter()
    found = [_mse(seed, root, tmp_path) for seed in range(SEEDS)]
    mean = sum(found) / SEEDS
    ledger.note(
        "Pasquini 2021, MNIST, FSHA, MSE in [-1, 1]",
        "split at 32 x 7 x 7, batch 64, public: 10,000 test images, 1,876 iterations, 3 seeds",
        published=0.0193,
        ours=mean,
        high=HIGH,
        n=SEEDS,
        seconds=time.perf_counter() - started,
        remark=f"seeds: {', '.join(f'{each:.4f}' for each in found)}; theirs after 9,500 iterations of a "
        "large network, Wasserstein loss; ours a small one, logistic loss, clients with Adam at 0.002 that "
        "falls linearly; the last 1,024 private images; mean image 0.262",
    )
    assert mean <= HIGH
