"""Geiping et al. 2020, table 1: an untrained LeNet (Zhu), one CIFAR-10 image a gradient, label known."""

from __future__ import annotations

import time

import pytest
import torch
from federated import server
from ledger import note

from attacks.reconstruction.gradient_inversion import GradientInversion
from attacks.reconstruction.idlg import Idlg
from privbench.contract import Attack, Net, ReconstructionGuess, Samples, Spec
from privbench.data.cifar10 import Cifar10

pytestmark = [pytest.mark.golden, pytest.mark.timeout(4 * 3600)]

IMAGES, AUXILIARY = 100, 1000
MEAN, SPREAD = (0.4915, 0.4823, 0.4468), (0.247, 0.2435, 0.2616)  # by which they scaled inputs
WEIGHT = 1e-2  # of the prior; theirs is not printed: the best of 1e-4 to 1e-1 on images 100 to 111
REPLICA = GradientInversion(steps=4800, rate=0.025, smooth=4 * WEIGHT, noise=0.25)
OURS = Idlg(steps=800, memory=50, smooth=1e-5, noise=0.02, centred=True)  # attack=idlg_prior


def psnrs(attack: Attack, root: str, auxiliary: str, images: int = IMAGES) -> torch.Tensor:
    """Of the first test images, in dB, in their order.

    Args:
        auxiliary: ``records`` that the attacker has, or the ``mean`` colour alone, as they had.
    """
    records = Cifar10(root=root, split="official").load()
    assert records.parts is not None and records.samples.y is not None
    test = records.samples[records.parts == records.parts.max()][:images]
    known = records.samples[records.parts == 0][:AUXILIARY]
    if auxiliary == "mean":
        grey = torch.tensor(MEAN)[:, None, None].expand(1, 3, 32, 32)
        known = Samples(grey.clone(), torch.zeros(1, dtype=torch.int64))
    net = Net(Spec("privbench.models.lenet_zhu.LeNetZhu", {"mean": MEAN, "spread": SPREAD}))
    view = server(net.initialised(torch.Generator().manual_seed(0)), test, known)
    guess = attack.run(view, torch.Generator().manual_seed(1))
    assert isinstance(guess, ReconstructionGuess)
    errors = (guess.x - test.x[guess.rows[:, 1]]).square().flatten(1).mean(dim=1)
    return -10 * errors.clamp(min=1e-10).log10()


def test_one_image_of_an_untrained_lenet(root: str) -> None:
    start = time.perf_counter()
    replica = psnrs(REPLICA, root, "mean")
    ours = psnrs(OURS, root, "records")
    note(
        "Geiping 2020, CIFAR-10, gradient inversion, one image, PSNR dB",
        "untrained LeNet (Zhu), first 100 test images, label known, one seed",
        published=18.00,
        replica=float(replica.mean()),
        ours=float(ours.mean()),
        low=17.0,
        high=19.0,
        n=IMAGES,
        seconds=time.perf_counter() - start,
        remark=f"replica: 4,800 steps from noise, one start, weight of the prior {WEIGHT:g}, which theirs "
        "does not print: on images 100 to 111 the weights 1e-4, 1e-3, 1e-2, 1e-1 give 13.7, 16.1, 18.4, "
        "16.6 dB (their code's default, 1e-4, on these 100: 14.66); ours: attack=idlg_prior; standard "
        f"deviation over images {float(replica.std()):.2f} dB (theirs 3.33)",
    )
    assert float(ours.mean()) >= 17.0
    assert float(ours.mean()) >= float(replica.mean())
    if not 17.0 <= float(replica.mean()) <= 19.0:
        pytest.xfail(
            f"replica {float(replica.mean()):.2f} dB, published 18.00: benchmarks/golden.csv"
        )
