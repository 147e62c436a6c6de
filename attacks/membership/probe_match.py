"""Membership by probes: send a record as one's own sample, and look for what comes back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from privbench.contract import (
    Actor,
    Attack,
    Block,
    MembershipGuess,
    Message,
    Stand,
    View,
    Weights,
    blocks,
    counted,
)
from privbench.errors import NotApplicable, UsageError
from privbench.toolkit.prefix import Prefixes
from privbench.toolkit.traffic import places, selected

ROWS, NUMBERS = "probe_rows", "probe_candidates"


class Prober(Actor):
    """Sends, in place of its own records' stem output, that of one candidate after another.

    Nobody is to learn from them: their labels are not its records'. So it answers with gradients of zero,
    else weights would be pulled about from step to step, and what a record gives with them.
    """

    kinds: ClassVar[tuple[str, ...]] = ("stem_weights", "activation", "gradient", "tail_gradient")

    def open(self, stand: Stand, rng: torch.Generator) -> None:
        """Nothing is sent yet.

        Raises:
            NotApplicable: no candidates, a stem that is told in part alone, or no receiver of its output.
        """
        candidates, topology = stand.public.candidates, stand.topology
        if candidates is None or not len(candidates):
            raise NotApplicable("probe_match needs candidates; this seat is granted none")
        stems = [layer for layer in topology.layers if layer.place == "stem"]
        told = {name for layer in stems for name in layer.parameters}
        sent = {layer.name for layer in stems if _crosses(stand, layer.name, layer.channels)}
        if not sent:
            raise NotApplicable(
                f"'{stand.seat.name}' alone is sent some of the stem's output, so that it knows all before "
                "it; choose attack=activation_match"
            )
        self._prefixes = Prefixes(topology, ())
        lacking = {n for name in sent for n in self._prefixes.asked(name)} - told
        if lacking:
            raise NotApplicable(
                f"owners are not told {', '.join(sorted(lacking))} of the stem, so that they cannot run it "
                "on records of their choice; choose a model without it"
            )
        self._parties, self._topology, self._x = stand.seat.parties, topology, candidates.x
        self._sent, self._stem = sent, dict[str, Tensor]()
        self._asked: dict[tuple[int, int], int] = {}

    def act(self, message: Message, rng: torch.Generator) -> Message:
        """The stem's output for the next candidates, one for each own row of the step; no gradient."""
        if message.kind == "stem_weights":
            self._stem[message.layer] = message.payload
        if message.sender not in self._parties:
            return message
        if message.kind == "tail_gradient":
            return replace(message, payload=torch.zeros_like(message.payload))
        if message.kind == "gradient":
            return replace(message, payload=self._silenced(message))
        if message.kind == "activation" and message.layer in self._sent:
            return replace(message, payload=self._output(message))
        return message

    def notes(self) -> dict[str, Tensor]:
        """Which candidate stood at which row."""
        rows = torch.tensor(list(self._asked), dtype=torch.int64).reshape(-1, 2)
        return {ROWS: rows, NUMBERS: torch.tensor(list(self._asked.values()), dtype=torch.int64)}

    def _output(self, message: Message) -> Tensor:
        asked = [(message.step, row) for row in message.rows.tolist()]
        for each in asked:
            self._asked.setdefault(each, len(self._asked) % len(self._x))
        x = self._x[[self._asked[each] for each in asked]].to(message.payload.device)
        held = (Weights(message.step, "", None, self._stem),)
        stem = Prefixes(self._topology, held, self._prefixes).at(message.layer, message.step)
        with torch.no_grad():
            whole = stem(x)
        return whole if message.units is None else selected(whole, message.units)

    def _silenced(self, message: Message) -> Tensor:
        """A gradient, but for rows of its own."""
        own = [(message.step, row) in self._asked for row in message.rows.tolist()]
        kept = message.payload.clone()
        kept[torch.tensor(own, dtype=torch.bool, device=kept.device)] = 0.0
        return kept


def _crosses(stand: Stand, layer: str, channels: int) -> bool:
    """Do others get every channel of a layer of the seat's stem?"""
    sent: set[int] = set()
    for piece in stand.topology.slices:
        for need in piece.needs:
            if need.layer == layer and piece.party not in stand.seat.parties:
                sent.update(range(channels) if need.units is None else need.units)
    return len(sent) == channels


@dataclass(frozen=True, kw_only=True)
class ProbeMatch(Attack):
    """Who does not know the layers before what it sees has the others run them on a record.

    none: no paper asks for membership so. That a device which owns samples can have chosen ones
    processed is the chosen-plaintext setting of split inference (Z. He, T. Zhang, R. B. Lee, 2019,
    https://doi.org/10.1145/3359789.3359824, query-free and black-box attacks), here in training.

    While the model is trained, the seat sends the stem's output for a candidate in place of that for a
    record of its own. What arrives at its seat behind the other hosts' layers is the candidate's
    activation under the weights of this step. A member crosses once in each epoch, under weights that
    differ by the steps between: the nearest row of each neighbouring step is looked at, in units of how
    near other samples come (the median over steps). The nearest of all tells.

    One own row probes one candidate, so that a device with as many rows in the whole run as there are
    candidates probes each once; those never probed get a middling score. Its own records are not learned
    from. Where owners send labels (``regime.labels=shared``) the gradients are another's to send: then
    candidates are learned from under labels of its own records, weights move more, and less is found.

    Args:
        reach: epochs before and after a probe in which rows are compared.

    Example::

        privbench regime=slicenet threat=host_active threat.steps=all attack=probe_match
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = ("candidates", "own_samples")
    reads: ClassVar[tuple[str, ...]] = ("activation",)
    actor: ClassVar[type[Actor] | None] = Prober
    source: ClassVar[str] = (
        "none: no paper asks for membership by probes in split training; chosen inputs as in Z. He, "
        "T. Zhang, R. B. Lee, 2019, https://doi.org/10.1145/3359789.3359824"
    )

    reach: float = 1.0  # epochs: a member crosses once in each

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.reach > 0:
            raise UsageError(f"attack.reach={self.reach}; expected a number of epochs above 0")

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Score every candidate by how much nearer than others' its nearest row comes.

        Raises:
            NotApplicable: no candidates, no probe that came back, or rows recorded in another order.
        """
        candidates = view.public.candidates
        if candidates is None:
            raise NotApplicable("probe_match needs candidates; this seat is granted none")
        rows, numbers = _probes(view)
        total = torch.zeros(len(candidates), dtype=torch.float64)
        count = torch.zeros(len(candidates), dtype=torch.float64)
        window = max(1, round(self.reach * view.topology.steps_per_epoch))
        for block, own in _seen(view):
            at = places(block.rows, rows)
            for probes, found in _compared(block, own, at, rows, window):
                total.index_add_(0, numbers[probes], found)
                count.index_add_(0, numbers[probes], torch.ones_like(found))
        if not bool(count.any()):
            raise NotApplicable(
                f"no probe of '{view.seat.name}' reached its seat beside rows of others; look at more "
                "steps (threat.steps=all), or choose another threat.seat"
            )
        score = total / count.clamp(min=1)
        return MembershipGuess(torch.where(count > 0, score, score[count > 0].median()))


def _probes(view: View) -> tuple[Int64[Tensor, "n 2"], Int64[Tensor, " n"]]:
    """Rows of the steps that are looked at, and the candidate that stood there.

    Raises:
        NotApplicable: they are not the rows of own records.
    """
    rows, numbers = view.notes[ROWS], view.notes[NUMBERS]
    own = torch.empty(0, 2, dtype=torch.int64) if view.own is None else view.own.rows
    seen = torch.isin(rows[:, 0], torch.tensor(view.steps(), dtype=torch.int64))
    rows, numbers = rows[seen], numbers[seen]
    if len(rows) and bool((places(own.unique(dim=0), rows) < 0).any()):
        raise NotApplicable(
            "rows were recorded in another order than they were sent in, so that probes are not found "
            "again; type capture.samples=0"
        )
    return rows, numbers


def _seen(view: View) -> Iterator[tuple[Block, Tensor]]:
    """What was seen of the first layer of which rows of others were, and which rows are own."""
    own = torch.empty(0, 2, dtype=torch.int64) if view.own is None else view.own.rows
    own = own.unique(dim=0)
    for layer in view.topology.layers:
        found = [(b, places(own, b.rows) >= 0) for b in blocks(view.messages, layer, "activation")]
        found = [(block, mine) for block, mine in found if bool((~mine).any())]
        if any(bool(mine.any()) for _, mine in found):
            yield from found
            return


def _compared(
    block: Block, own: Tensor, at: Int64[Tensor, " probes"], rows: Tensor, window: int
) -> Iterator[tuple[Int64[Tensor, " n"], Float[Tensor, " n"]]]:
    """Probes of one step, and how much nearer than in other steps the nearest row of one comes."""
    payload = block.payload.flatten(1).double()
    told = payload.any(dim=1)
    others = (~own & told).nonzero().flatten()
    back = (at >= 0) & told[at.clamp(min=0)]
    steps = block.rows[others, 0].contiguous()
    for step in counted(rows[back, 0].unique().tolist()):
        ends = torch.tensor([step - window, step + window + 1])
        low, high = torch.searchsorted(steps, ends).tolist()
        probes = (back & (rows[:, 0] == step)).nonzero().flatten()
        near, number = steps[low:high].unique(return_inverse=True)
        if len(near):
            apart = torch.cdist(payload[at[probes]], payload[others[low:high]])
            nearest = apart.new_full((len(probes), len(near)), torch.inf)
            nearest.scatter_reduce_(1, number.expand(len(probes), -1), apart, "amin")
            logs = nearest.clamp(min=1e-9).log()
            yield probes, logs.median(dim=1).values - logs.amin(dim=1)
