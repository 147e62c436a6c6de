"""What a participant gets from two broadcasts: the others' gradient, and the inputs behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import Attack, ReconstructionGuess, View
from privbench.errors import NotApplicable
from privbench.toolkit.inverting import Found, Setting, asked_first, guessed, inverted, shape_of
from privbench.toolkit.priors import expected
from privbench.toolkit.ratios import first_linear, several, single
from privbench.toolkit.second_order import equalled
from privbench.toolkit.updates import observed

BROADCAST = ("global_weights", "stem_weights", "tail_weights")


@dataclass(frozen=True, kw_only=True)
class StemDifferencing(Attack):
    """Subtracts two broadcasts of the stem, takes off its own part, and inverts what is left.

    L. Melis, C. Song, E. De Cristofaro, V. Shmatikov: Exploiting Unintended Feature Leakage in
    Collaborative Learning, IEEE S&P 2019, https://arxiv.org/abs/1805.04049, is where a participant takes
    its own update off two models in a row.

    We differ: they infer properties from the difference, we rebuild inputs: by division behind a linear
    stem, for which nothing else is needed, and behind any other by making gradients equal, for which
    the weights of the whole network must be known. An update of its own that the seat sees is taken off.

    Args:
        steps: of L-BFGS behind a stem that is not linear.
        memory: steps that it remembers.
        smooth: weight of the mean total variation a pixel.
        noise: standard deviation of the start around the mean auxiliary input.
        images: most that are rebuilt of one step.

    Example::

        privbench regime=slicenet threat=owner threat.steps=first:4 attack=stem_differencing
    """

    goal: ClassVar[str] = "reconstruction"
    reads: ClassVar[tuple[str, ...]] = ("stem_weights", "global_weights")
    source: ClassVar[str] = (
        "L. Melis, C. Song, E. De Cristofaro, V. Shmatikov, Exploiting Unintended Feature Leakage in "
        "Collaborative Learning, 2019, https://arxiv.org/abs/1805.04049"
    )
    conformance: ClassVar[Mapping[str, object]] = MappingProxyType({"steps": 40})

    steps: int = 200
    memory: int = 20
    smooth: float = 1e-5
    noise: float = 0.02
    images: int = 64

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """Images for the rows of others in each step that holds a victim, one group a step.

        Raises:
            NotApplicable: no two broadcasts in a row were seen, or the stem is not linear and weights of the
                rest are not known.
        """
        own = set(view.seat.parties)
        messages = tuple(m for m in view.messages if m.kind in BROADCAST or m.sender in own)
        seen = replace(view, messages=messages)
        steps = {message.step for message in messages if message.kind in BROADCAST}
        if len(view.victims) and not any(step + 1 in steps for step in steps):
            raise NotApplicable(
                "a step is told by two broadcasts in a row, and this seat sees none; "
                "choose threat.steps=all or capture.every=1"
            )
        if not len(view.victims):
            return guessed(view, [])
        try:
            return self._divided(seen)
        except NotApplicable as why:
            setting = Setting(images=self.images, noise=self.noise)
            descend = equalled(self.steps, self.memory, self.smooth)
            try:
                (guess,) = inverted([seen], [rng], setting, descend)
            except NotApplicable as cause:
                raise NotApplicable(f"{why}; {cause}") from cause
            return guess

    def _divided(self, view: View) -> ReconstructionGuess:
        """By division, behind a linear stem."""
        shape, found = shape_of(view), []
        module = view.topology.net.module()
        for known in observed(view, whole=False):
            rows = asked_first(view, known, self.images)
            if rows is None:
                continue
            layer = first_linear(module, known.gradient, math.prod(shape))
            read = single(layer) if len(known.rows) == 1 else several(layer, len(known.rows))
            found.append(Found(rows, _filled(read, len(rows), expected(view.public, shape))))
        return guessed(view, found)


def _filled(read: Tensor | None, rows: int, mean: Tensor) -> Float[Tensor, "rows ..."]:
    """What was read, and the mean auxiliary input for what was not."""
    x = mean.expand(rows, *mean.shape).clone()
    if read is not None:
        read = read.reshape(-1, *mean.shape)[:rows]
        x[: len(read)] = read
    return x
