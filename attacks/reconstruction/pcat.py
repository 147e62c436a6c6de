"""Train a pseudo-client beside the true one, then decode through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privbench.contract import Attack, ReconstructionGuess, Samples, View, child_rng, counted
from privbench.toolkit.decoders import decoder, drawn
from privbench.toolkit.standin import (
    StandIn,
    guessed,
    labelled,
    labels_of,
    like_batches,
    loss_of,
    rounds,
    size_of,
    snapshots,
    some_of,
    stand_in_of,
    unseen,
)
from privbench.toolkit.traffic import Seen, defended, selected


@dataclass(frozen=True, kw_only=True)
class Pcat(Attack):
    """A pseudo-client learns from each intermediate server model, on a few labelled records.

    X. Gao, L. Zhang: PCAT: Functionality and Data Stealing from Split Learning by Pseudo-Client
    Attack, USENIX Security 2023, https://www.usenix.org/conference/usenixsecurity23/presentation/gao.

    We differ: the server models are those that the seat's transcript recorded (all of training under
    ``threat.steps=all``), the steps are spread over them in order, and the decoder is trained when the
    pseudo-client is done, on pairs that passed the message defenses in force.

    A batch has the labels of the rows that crossed at that step, where the seat is sent labels.

    Args:
        each: auxiliary records of each class; None = all.
        training: steps of Adam on the pseudo-client.
        learning: rate of these steps.
        batch: records of such a step where the seat is sent no labels.
        decoding: steps of Adam on the decoder.
        rate: of these steps; it falls to 0.
        width: of the decoder, in channels.

    Example::

        privbench regime=split threat=split_server threat.steps=all attack=pcat victims=32
    """

    goal: ClassVar[str] = "reconstruction"
    needs: ClassVar[tuple[str, ...]] = ("own_weights", "auxiliary")
    reads: ClassVar[tuple[str, ...]] = ("activation", "labels")
    source: ClassVar[str] = (
        "X. Gao, L. Zhang, PCAT: Functionality and Data Stealing from Split Learning by "
        "Pseudo-Client Attack, 2023, https://www.usenix.org/conference/usenixsecurity23/presentation/gao"
    )
    conformance: ClassVar[Mapping[str, object]] = MappingProxyType(
        {"training": 60, "decoding": 500, "rate": 5e-3, "width": 8}
    )

    each: int | None = None
    training: int = 3000
    learning: float = 1e-3
    batch: int = 64
    decoding: int = 1500
    rate: float = 1e-3
    width: int = 32

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """An input for each victim; the mean auxiliary input for one that was not seen.

        Raises:
            NotApplicable: no labelled auxiliary records, or no weights behind what is seen.
        """
        blank = unseen(view)
        records = some_of(labelled(view), self.each, child_rng(rng, "records"))

        def work(seen: Seen, payload: Tensor) -> Tensor:
            client = self.pseudo_client(view, seen, records, rng).settled()
            net = self._decoder(view, seen, client, records.x, rng)
            with torch.no_grad():
                return cast(Tensor, net(payload / size_of(seen)))

        return guessed(view, blank, work)

    def pseudo_client(
        self, view: View, seen: Seen, records: Samples, rng: torch.Generator
    ) -> StandIn:
        """The network with the seat's weights of the last step and a pseudo-client in front of them.

        Raises:
            NotApplicable: the seat knows no weights behind what it sees.
        """
        steps, loss = snapshots(view, seen), loss_of(view)
        client = stand_in_of(view, seen, steps[-1], child_rng(rng, "start"))
        if not client.free:
            return client
        told = _told(view, seen)
        draws = child_rng(rng, "batches")
        adam = torch.optim.Adam(client.free.values(), lr=self.learning)
        labels = cast(Tensor, records.y)
        for step in rounds(self.training, steps):
            client.at(step)
            if step in told:
                chosen = like_batches(labels, told[step], draws)
            else:
                chosen = torch.randint(len(records), (self.batch,), generator=draws)
            batch = records[chosen.to(view.device)]
            adam.zero_grad()
            loss(client(batch.x).output, cast(Tensor, batch.y)).backward()
            adam.step()
        return client

    def _decoder(
        self,
        view: View,
        seen: Seen,
        client: StandIn,
        x: Float[Tensor, "n ..."],
        rng: torch.Generator,
    ) -> nn.Module:
        """From what the pseudo-client sends back to what it was given."""
        shape, size = tuple(x.shape[1:]), size_of(seen)
        features = tuple(seen.seen.payload.shape[1:])
        net = drawn(lambda: decoder(features, shape, self.width), child_rng(rng, "decoder"))
        net = net.to(view.device)
        adam = torch.optim.Adam(net.parameters(), lr=self.rate)
        fall = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, self.decoding)
        draws, noise = child_rng(rng, "pairs"), child_rng(rng, "defense")
        for number in counted(range(self.decoding)):
            chosen = torch.randint(len(x), (self.batch,), generator=draws).to(view.device)
            with torch.no_grad():
                whole = client.activation(x[chosen])
                sent = defended(view.topology, seen.layer, whole, number, noise)
            adam.zero_grad()
            made = net(selected(sent, seen.seen.units) / size)
            (made - x[chosen]).square().mean().backward()
            adam.step()
            fall.step()
        return net.eval()


def _told(view: View, seen: Seen) -> dict[int, Tensor]:
    """Labels of the rows that crossed at each step, as far as the seat was sent them."""
    rows = seen.seen.rows
    labels = labels_of(view, rows)
    here = labels >= 0
    steps, counts = torch.unique_consecutive(rows[here, 0], return_counts=True)
    return dict(zip(steps.tolist(), labels[here].split(counts.tolist()), strict=True))
