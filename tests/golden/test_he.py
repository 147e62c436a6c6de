"""He, Zhang, Lee 2019, tables 3 and 4: their numbers, their recipe, and our presets on the same images.

PSNR is theirs: of images in [0, 255] with peak 255, which is that of images in [0, 1] with peak 1, mean
over images. They do not say which images they took: here the first of the test set.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import he_nets
import numpy as np
import pytest
import torch
from he_views import view_of
from ledger import note
from omegaconf import OmegaConf
from torch import Tensor

from attacks.reconstruction.activation_inversion import ActivationInversion
from attacks.reconstruction.inverse_network import InverseNetwork
from privbench import plugins
from privbench.contract import Attack, Net, Samples
from privbench.data.cifar10 import Cifar10
from privbench.data.mnist import Mnist
from privbench.data.splits import open_population
from privbench.scoring.images import mse, ssim

THROTTLED = (
    "with Adam's eps at 1e-6 in place of their 1e-3 the same search gives 117 dB at conv11 on 8 images: at "
    "1e-3 it advances with the square of the weights, and these are those of 3 epochs, theirs of up to 200 "
    "(the default of their code); longer training was not tried"
)
TRIED = {
    "conv1": (
        "on 16 images 500 / 800 / 1,500 / 5,000 steps give 29.8 / 33.8 / 38.6 / 49.6 dB, and 5,000 at "
        "rate 1e-3 29.3; the paper's text has 500 steps for shallow cuts, its repository lists 5,000; "
        "likely but not settled: theirs took about 1,500, or their target was trained otherwise"
    ),
    "ReLU2": (
        "on 16 images 500 / 800 / 1,500 / 5,000 steps give 13.5 / 15.3 / 17.5 / 18.6 dB, and 5,000 at "
        "rate 1e-3 (the paper's text for deep cuts; its repository has 1e-2) 13.1; not tried: a "
        "target trained for 50 epochs"
    ),
    "conv11": THROTTLED,
    "ReLU22": THROTTLED,
}
"""What is known of why a replica does not meet the published figure, where it does not."""

WEAKER = ("conv11", "ReLU22")  # where theirs is known to be out of reach of so short a training

pytestmark = [pytest.mark.golden, pytest.mark.timeout(6 * 3600)]


@dataclass(frozen=True, eq=False)
class Target:
    """A trained network and its images."""

    name: str
    net: Net
    accuracy: float
    train: Samples
    test: Samples


@pytest.fixture(scope="module")
def mnist(root: str) -> Target:
    """LeNet-5 on MNIST."""
    return _target("lenet", Mnist(root=root, split="official"), epochs=5)


@pytest.fixture(scope="module")
def photographs(root: str) -> Target:
    """The network of six convolutions on CIFAR-10."""
    return _target("cifar", Cifar10(root=root, split="official"), epochs=3)


def _target(name: str, source: Any, epochs: int) -> Target:
    people = open_population(source, 0).population
    records = source.load().samples  # the files' order, training images first
    test = records[torch.arange(len(people.train), len(records))]
    net = he_nets.trained(name, people.train, epochs)
    return Target(name, net, he_nets.accurate(net, people.held_out), people.train, test)


def preset(name: str, **settings: Any) -> Attack:
    """An attack as its yaml says, with some settings changed."""
    written = OmegaConf.to_container(OmegaConf.load(plugins.listing()["attack"][name].path))
    assert isinstance(written, dict)
    written.pop("_target_")
    return ActivationInversion(**{**written, **settings})


def quality(guess: Tensor, true: Tensor) -> tuple[float, float]:
    """PSNR in dB and SSIM, means over images."""
    similar = ssim(guess, true)
    assert similar is not None
    return float(-10 * np.log10(np.maximum(mse(guess, true), 1e-30)).mean()), float(similar.mean())


def rebuilt(attack: Attack, target: Target, cut: str, images: int, auxiliary: int) -> Tensor:
    """What an attack makes of the first test images."""
    x = target.test.x[:images]
    known = target.train[torch.arange(auxiliary)]
    return attack.run(view_of(target.net, cut, x, known), torch.Generator().manual_seed(0)).x


def _blind(target: Target, images: int) -> float:
    mean = target.train.x.mean(dim=0)
    return quality(mean.expand_as(target.test.x[:images]), target.test.x[:images])[0]


def _both(
    target: Target, cut: str, images: int, published: tuple[float, float], smooth: float,
    spread: Any, words: str,
) -> tuple[float, float]:  # fmt: skip
    """PSNR of replica and ours, written down."""
    started, found = time.perf_counter(), []
    for attack in (preset("rmle", smooth=smooth, spread=spread), preset("activation_inversion")):
        guess = rebuilt(attack, target, cut, images, auxiliary=2000)
        found.append(quality(guess, target.test.x[:images]))
        print(
            words, cut, type(attack).__name__, found[-1], time.perf_counter() - started, flush=True
        )
    (replica, replica_ssim), (ours, ours_ssim) = found
    setting = f"{words}, test accuracy {target.accuracy:.3f}, first {images} test images"
    blind = _blind(target, images)
    remark = f"mean image {blind:.1f} dB"
    if published[0] - blind < 2:
        remark += ": published and replica are barely above guessing"
    if abs(replica - published[0]) > 2:
        remark += f"; missed: {TRIED.get(cut, 'cause unknown')}"
    for metric, theirs, mine, best, slack, digits in (
        ("PSNR dB", published[0], replica, ours, 2.0, remark),
        ("SSIM", published[1], replica_ssim, ours_ssim, None, ""),
    ):
        note(
            f"He 2019, rMLE, {target.name} {cut}, {metric}", setting, published=theirs, replica=mine,
            ours=best, low=None if slack is None else theirs - slack,
            high=None if slack is None else theirs + slack, n=images,
            seconds=time.perf_counter() - started, remark=digits,
        )  # fmt: skip
    return replica, ours


def _held(replica: float, published: float, cut: str) -> None:
    """Two-sided. A replica that is better than published is a figure missed, not a broken attack; one that
    is worse is broken, but where it is known why (``WEAKER``).
    """
    assert replica >= published - 2 or cut in WEAKER
    if abs(replica - published) > 2:
        pytest.xfail(
            f"replica {replica:.2f} dB, published {published} dB: see benchmarks/golden.csv"
        )


@pytest.mark.parametrize(
    ("cut", "published", "smooth", "ours_at_least"),
    [("conv1", (39.69, 0.9969), 0.0, 60.0), ("ReLU2", (15.10, 0.5998), 1.0, 24.0)],
)
def test_white_box_on_mnist(
    mnist: Target, cut: str, published: tuple[float, float], smooth: float, ours_at_least: float
) -> None:
    replica, ours = _both(mnist, cut, 100, published, smooth, 0.5, "LeNet-5, 5 epochs")
    assert ours >= ours_at_least
    _held(replica, published[0], cut)


@pytest.mark.parametrize(
    ("cut", "published", "smooth"),
    [
        ("conv11", (37.59, 0.9960), 0.0),
        ("ReLU22", (19.47, 0.6940), 10.0),
        ("ReLU32", (13.38, 0.1625), 1000.0),
    ],
)
def test_white_box_on_cifar(
    photographs: Target, cut: str, published: tuple[float, float], smooth: float
) -> None:
    replica, ours = _both(
        photographs, cut, 50, published, smooth, he_nets.CIFAR[1], "6 conv + 2 fc, 3 epochs"
    )
    assert ours >= replica
    _held(replica, published[0], cut)


@pytest.mark.parametrize(
    ("cut", "published"), [("conv1", (40.72, 0.9950)), ("ReLU2", (20.81, 0.8046))]
)
def test_black_box_on_mnist(mnist: Target, cut: str, published: tuple[float, float]) -> None:
    """Pairs of images of the same distribution that neither trained the target nor are attacked."""
    started = time.perf_counter()
    x, known = mnist.test.x[:100], mnist.test[torch.arange(100, len(mnist.test))]
    view = view_of(mnist.net, cut, x, known)
    guess = InverseNetwork().run(view, torch.Generator().manual_seed(0)).x
    found = quality(guess, x)
    setting = (
        f"LeNet-5, 5 epochs, test accuracy {mnist.accuracy:.3f}, first 100 test images, "
        f"{len(known)} others as pairs"
    )
    for metric, theirs, mine, low in (
        ("PSNR dB", published[0], found[0], published[0] - 2),
        ("SSIM", published[1], found[1], None),
    ):
        note(
            f"He 2019, inverse network, {mnist.name} {cut}, {metric}", setting, published=theirs,
            ours=mine, low=low, n=100, seconds=time.perf_counter() - started,
            remark=f"mean image {_blind(mnist, 100):.1f} dB; low is for ours" if low else "",
        )  # fmt: skip
    assert found[0] >= published[0] - 2
