"""Read inputs off the gradient of a first linear layer, by division."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import Attack, ReconstructionGuess, View
from privbench.toolkit.inverting import Found, asked_first, guessed, shape_of
from privbench.toolkit.priors import expected
from privbench.toolkit.ratios import first_linear, several, single
from privbench.toolkit.updates import observed


@dataclass(frozen=True, kw_only=True)
class Analytic(Attack):
    """Divides the gradient of a first linear layer's weight by that of its bias: the input is left.

    L. T. Phong, Y. Aono, T. Hayashi, L. Wang, S. Moriai: Privacy-Preserving Deep Learning via Additively
    Homomorphic Encryption, IEEE TIFS 13(5), 2018 (2017), https://doi.org/10.1109/TIFS.2017.2787987.

    We differ: ratios of all neurons are weighed by how much returned to each, and of batches those inputs are
    read that some neuron saw alone; rows for which there is none are guessed at the mean auxiliary
    input. One input is exact up to rounding, after any number of local steps on it; no weights are needed.

    Args:
        images: most that are rebuilt of one update.

    Example::

        privbench regime=fedavg_one_sample model=mlp threat=server attack=analytic
    """

    goal: ClassVar[str] = "reconstruction"
    reads: ClassVar[tuple[str, ...]] = ("update", "stem_gradient", "global_weights", "stem_weights")
    source: ClassVar[str] = (
        "L. T. Phong, Y. Aono, T. Hayashi, L. Wang, S. Moriai, Privacy-Preserving Deep Learning via "
        "Additively Homomorphic Encryption, 2017, https://doi.org/10.1109/TIFS.2017.2787987"
    )

    images: int = 64

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """Images for the rows of each update that holds a victim, one group an update.

        Raises:
            NotApplicable: the first layer is not linear or has no bias, or its gradient was not seen.
        """
        found = []
        for known in observed(view, whole=False) if len(view.victims) else ():
            rows = asked_first(view, known, self.images)
            if rows is None:
                continue
            shape = shape_of(view)
            layer = first_linear(view.topology.net.module(), known.gradient, math.prod(shape))
            mean = expected(view.public, shape)
            x = mean.expand(len(rows), *shape).clone()
            if len(known.rows) == 1:
                one = single(layer)
                x = x if one is None else one.view(1, *shape)
            else:
                read = several(layer, len(known.rows))[: len(rows)]
                x[: len(read)] = read.view(-1, *shape)
            found.append(Found(rows, x))
        return guessed(view, found)
