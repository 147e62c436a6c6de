"""Decode activations by a small network that is trained on pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import Attack, ReconstructionGuess, View, child_rng
from privbench.errors import NotApplicable
from privbench.toolkit.inverter import Inverter, Inverting
from privbench.toolkit.pairs import PairSource, input_shape, pair_source
from privbench.toolkit.prefix import Prefixes
from privbench.toolkit.priors import expected
from privbench.toolkit.traffic import Seen, each_known, seen_of_victims


@dataclass(frozen=True, kw_only=True)
class InverseNetwork(Attack):
    """A network from activations back to inputs, of transposed shape, trained on pairs.

    Z. He, T. Zhang, R. B. Lee: Model Inversion Attacks Against Collaborative Inference, ACSAC 2019,
    https://doi.org/10.1145/3359789.3359824 (black box, inverse network).

    We differ: one network serves all steps of a seat: what it is shown is standardised, channel by
    channel, by the moments that pairs have under the step's own weights. A linear path runs beside the
    hidden layers. Pairs that were kept aside say when to stop: before the first step, where it is the
    mean input, if nothing better comes. Under message defenses it is trained on pairs that passed them.

    Pairs are those of the seat: see ``privbench.toolkit.pairs``.

    Args:
        steps: of Adam; its rate falls to 0 along a half cosine.
        batch: pairs a step, all under the weights of one training step drawn at random.
        rate: of Adam at the start.
        width: channels of the decoder's last hidden layer; deeper ones have more.
        held: share of the pairs that are kept aside.

    Example::

        privbench regime=slicenet threat=host attack=inverse_network
    """

    goal: ClassVar[str] = "reconstruction"
    needs: ClassVar[tuple[str, ...]] = ("pairs",)
    reads: ClassVar[tuple[str, ...]] = ("activation", "partial_sum")
    source: ClassVar[str] = (
        "Z. He, T. Zhang, R. B. Lee, Model Inversion Attacks Against Collaborative Inference, 2019, "
        "https://doi.org/10.1145/3359789.3359824"
    )
    conformance: ClassVar[Mapping[str, object]] = MappingProxyType({"steps": 200, "width": 8})

    steps: int = 600
    batch: int = 64
    rate: float = 1e-3
    width: int = 16
    held: float = 0.1

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """An image for each victim; the mean auxiliary image for one that was not seen.

        Raises:
            NotApplicable: the seat lacks what its kind of pairs needs.
        """
        shape = input_shape(view)
        prefixes = Prefixes(view.topology, view.weights)
        guess = expected(view.public, shape).repeat(len(view.victims), *(1 for _ in shape))

        def decoded(part: Seen) -> Tensor:
            source = pair_source(view, part, prefixes)
            return self._decoded(view, part, source, child_rng(rng, part.layer.name, part.kind))

        for part, found in each_known(seen_of_victims(view), decoded):
            guess[part.victims] = found
        return ReconstructionGuess(view.victims, guess)

    def _decoded(
        self, view: View, part: Seen, source: PairSource, rng: torch.Generator
    ) -> Float[Tensor, "victims ..."]:
        """Victims of which the same units were seen."""
        if min(source.count(step) for step in source.steps) < 2:
            raise NotApplicable(
                f"'{view.seat.name}' has fewer than two pairs at layer '{part.layer.name}'; an "
                "inverse network needs some to be trained on and one to be judged by"
            )
        how = Inverting(
            steps=self.steps, batch=self.batch, rate=self.rate, width=self.width, held=self.held
        )
        network = Inverter(how, source, view.device, rng)
        rows = view.victims[part.victims]
        shown = part.seen.payload[part.find(rows)].float()
        found = torch.empty(len(rows), *network.mean.shape)
        for step in rows[:, 0].unique().tolist():
            here = rows[:, 0] == step
            found[here] = network.decode(step, shown[here])
        return found
