"""How long white-box inversion takes beside the loop that anyone would write.

``python benchmarks/inversion.py``: 16 images of 28x28 pixels through LeNet-5, cut after its first and its
second convolution, 300 steps, one thread. The plain loop is torch's Adam on the images of one step
together, with the published objective; both are timed in turns, and the medians compared.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.reconstruction.activation_inversion import ActivationInversion
from privbench.contract import (
    Layer,
    Message,
    Net,
    Public,
    Samples,
    Seat,
    Spec,
    Topology,
    View,
    Weights,
    traced,
)
from privbench.toolkit.prefix import truncated

IMAGES, STEPS, TURNS = 16, 300, 5
CUTS = ("conv0", "conv1")  # nodes of LeNet-5
LENET = Net(Spec("privbench.models.lenet.LeNet5"))


@dataclass(frozen=True)
class Speed:
    """Medians of one cut, in seconds."""

    cut: str
    ours: float
    plain: float

    @property
    def ratio(self) -> float:
        """Ours over the plain loop's."""
        return self.ours / self.plain


def plain(network: nn.Module, target: Tensor, steps: int) -> Tensor:
    """He, Zhang, Lee 2019 as one writes it down: squared error, squared total variation, Adam."""
    x = torch.full((len(target), 1, 28, 28), 0.5, requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=0.01, eps=1e-3, amsgrad=True)
    for _ in range(steps):
        optimizer.zero_grad()
        variation = x.diff(dim=-1).square().mean() + x.diff(dim=-2).square().mean()
        ((network(x) - target).square().mean() + variation).backward()
        optimizer.step()
    return x.detach().clamp(0, 1)


def measure(images: int = IMAGES, steps: int = STEPS, turns: int = TURNS) -> tuple[Speed, ...]:
    """Time both in turns, at each cut, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return tuple(_measured(cut, images, steps, turns) for cut in CUTS)
    finally:
        torch.set_num_threads(before)


def _measured(cut: str, images: int, steps: int, turns: int) -> Speed:
    rng = torch.Generator().manual_seed(0)
    net, x = LENET.initialised(rng), torch.rand(images, 1, 28, 28, generator=rng)
    network = truncated(traced(net.module()), cut)
    for parameter in network.parameters():
        parameter.requires_grad_(False)  # the plain loop need not work for gradients nobody reads
    target = network(x)
    view, attack = _view(net, cut, target), ActivationInversion(steps=steps)
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for turn in range(turns + 1):  # the first one loads libraries
        for name in times:
            start = time.perf_counter()
            if name == "ours":
                attack.run(view, rng)
            else:
                plain(network, target, steps)
            if turn:
                times[name].append(time.perf_counter() - start)
    return Speed(cut, *(statistics.median(each) for each in times.values()))


def _view(net: Net, cut: str, sent: Tensor) -> View:
    """Whoever receives this layer and knows all before it."""
    shape, state = tuple(sent.shape[1:]), dict(net.weights or {})
    rows, parties = torch.arange(len(sent)), ("client", "split_server")
    return View(
        seat=Seat("split_server", "infrastructure", ("split_server",),
                  grants=frozenset({"auxiliary", "prefix_weights"}), pairs="prefix"),
        topology=Topology("split", parties, ("client",), Net(net.spec), 1, 1,
                          (Layer(cut, cut, "stem", shape[0], shape, tuple(state)),)),
        victims=torch.stack([torch.zeros_like(rows), rows], dim=1),
        messages=(Message(0, "train", *parties, "activation", cut, None, sent, rows),),
        weights=(Weights(0, cut, None, state),),
        public=Public(auxiliary=Samples(torch.rand(50, 1, 28, 28))),
    )  # fmt: skip


if __name__ == "__main__":
    for speed in measure():
        print(
            f"{IMAGES} images, {STEPS} steps, {speed.cut}: {speed.ours:.2f} s, plain loop "
            f"{speed.plain:.2f} s: {speed.ratio:.2f} of its time"
        )
