"""Decoders that are trained on pairs: one network for what is seen at many steps."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import child_rng, counted
from privbench.toolkit.decoders import drawn
from privbench.toolkit.pairs import ALL, PairSource, split_off
from privbench.toolkit.transposed import Transposed

CHECKS = 10  # how often the network is judged on pairs that it is not trained on
SAMPLE = 4096  # most pairs that a linear map is fitted on
JUDGES = 512  # most pairs that judge it, and that moments are taken of


@dataclass(frozen=True, kw_only=True)
class Inverting:
    """How an inverse network is trained.

    Args:
        steps: of Adam; its rate falls to 0 along a half cosine.
        batch: pairs a step, all of one training step drawn at random.
        rate: of Adam at the start.
        width: channels of the decoder's last hidden layer.
        held: share of the pairs that are kept aside.
    """

    steps: int
    batch: int
    rate: float
    width: int
    held: float


class Inverter:
    """A network from what is seen to inputs, trained, and the moments by which it is shown things.

    One network serves all steps of a source. It starts as the mean input, then as the best linear map,
    then is trained; what was best on pairs that were kept aside stays.

    Args:
        how: the settings.
        source: of pairs, two or more at each of its steps.
        device: where to train.
        rng: of weights, batches, and the noise of defenses.
    """

    def __init__(
        self, how: Inverting, source: PairSource, device: str, rng: torch.Generator
    ) -> None:
        self._how, self._source, self._device, self._rng = how, source, device, rng
        self._noise = child_rng(rng, "noise")
        self._kept, judging = {}, {}
        for step in source.steps:
            fit, judge = split_off(source.count(step), how.held, child_rng(rng, step))
            self._kept[step], judging[step] = fit, judge[: max(1, JUDGES // len(source.steps))]
        self._moments = {step: self._moments_of(step) for step in source.steps}
        self._judges = [
            (step, source.draw(step, index, self._noise)) for step, index in judging.items()
        ]
        first = source.steps[0]
        known = source.draw(first, self._kept[first][:JUDGES], self._noise)
        self.mean = known.x.float().mean(dim=0)
        shape = known.seen.shape[1:]
        made = drawn(lambda: Transposed(shape, self.mean, how.width), child_rng(rng, "init"))
        self._net = cast(Transposed, made).to(device)
        self._train()

    def decode(self, step: int, seen: Float[Tensor, "n units ..."]) -> Float[Tensor, "n ..."]:
        """What the network says of things seen at one step."""
        step = step if step in self._moments else ALL
        with torch.no_grad():
            parts = [self._net(part).cpu() for part in self._shown(step, seen).split(JUDGES)]
        return torch.cat(parts)

    def _train(self) -> None:
        """Train, and keep what was best on the pairs kept aside: the mean, a linear map, or more."""
        how, net = self._how, self._net
        least, best = self._error(), copy.deepcopy(net.state_dict())
        net.fit(*self._sample(), child_rng(self._rng, "patches"))
        if self._error() >= least:
            net.load_state_dict(best)
        optimizer = torch.optim.Adam(net.parameters(), lr=how.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, how.steps)
        order, steps = child_rng(self._rng, "order"), self._source.steps
        for number in counted(range(how.steps)):
            if number % max(1, how.steps // CHECKS) == 0 and (error := self._error()) < least:
                least, best = error, copy.deepcopy(net.state_dict())
            step = steps[int(torch.randint(len(steps), (), generator=order))]
            kept = self._kept[step]
            chosen = torch.randint(len(kept), (min(how.batch, len(kept)),), generator=order)
            pairs = self._source.draw(step, kept[chosen], self._noise)
            optimizer.zero_grad()
            said = net(self._shown(step, pairs.seen))
            (said - pairs.x.to(said)).square().mean().backward()
            optimizer.step()
            schedule.step()
        if self._error() >= least:
            net.load_state_dict(best)

    def _sample(self) -> tuple[Tensor, Tensor]:
        """Some pairs of every step, as the network is shown them."""
        steps = self._source.steps
        seen, x = [], []
        for step in steps:
            pairs = self._source.draw(
                step, self._kept[step][: max(2, SAMPLE // len(steps))], self._noise
            )
            seen.append(self._shown(step, pairs.seen))
            x.append(pairs.x.float().to(self._device))
        return torch.cat(seen), torch.cat(x)

    def _error(self) -> float:
        """Mean squared error on the pairs kept aside."""
        total, count = 0.0, 0
        for step, pairs in self._judges:
            x = pairs.x.float()
            with torch.no_grad():
                said = self._net(self._shown(step, pairs.seen)).cpu()
            total += float((said - x).square().flatten(1).mean(dim=1).sum())
            count += len(x)
        return total / count

    def _moments_of(self, step: int) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each channel (of each value, where there are no maps) at a step."""
        seen = self._source.draw(step, self._kept[step][:JUDGES], self._noise).seen
        axes = (0, *range(2, seen.ndim))
        mean = seen.mean(dim=axes, keepdim=True)[0]
        deviation = seen.std(dim=axes, keepdim=True, unbiased=False)[0]
        return mean, deviation + 1e-3 * deviation.max() + 1e-12

    def _shown(self, step: int, seen: Float[Tensor, "n units ..."]) -> Float[Tensor, "n units ..."]:
        mean, deviation = self._moments[step]
        return ((seen - mean) / deviation).to(self._device)
