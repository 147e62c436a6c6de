"""The simulated crowd when devices fail: it goes on as well as it can, and counts what it lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import HEADER_BYTES, Handover, Losses, Message, Party, Samples, child_rng
from privbench.slicenet.belongings import Belongings, Content
from privbench.slicenet.course import RELEASER, Turn
from privbench.slicenet.engine import Simulated
from privbench.slicenet.watch import Outage, Watch
from privbench.slicenet.waves import ANSWERS, BROADCASTS, Missed, Wave, missed, waves
from privbench.wire.wire import Wire


class Faulty(Simulated):
    """Trains like ``Simulated``, as far as devices are there and messages arrive.

    - Rows whose owner is away are left out; the loss is the mean over the others.
    - Slices change hands as the course says; whoever takes over goes on from the copy that it holds.
    - A step that some slice has no host for is skipped before anything is sent.
    - A step that takes longer than the deadline, or in which a message is lost as often as it may be
      sent, is given up: weights stay what they were. Its messages count and are recorded up to those
      of the layer (and direction) in which it failed; the late step's all.

    Args:
        outage: what fails.
        args: those of ``Simulated``; the topology holds the course's ``handovers``.

    Raises:
        UsageError: the deadline is shorter than any step.
    """

    def __init__(self, outage: Outage, *args: Any) -> None:
        self._outage, self._faults = outage, outage.faults
        self._watch = Watch(outage)
        super().__init__(*args)
        self._belongings = Belongings(self._stages, self._topology.slices, self._optimizer)
        homes = self._belongings.homes
        self._host_of = {home: home for home in homes}
        self._initial = {home: self._belongings.take(home) for home in homes}
        self._kept: dict[tuple[Party, Party], tuple[int, tuple[Content, ...]]] = {}
        self._counts: Counter[str] = Counter()
        self._learned = 0  # steps that changed the weights
        self._seconds = self._seconds_lost = self._moving = 0.0
        self._rng = torch.Generator().manual_seed(outage.faults.seed)
        self._draws = self._rng

    def present(self, step: int, owners: Int64[Tensor, " rows"]) -> Int64[Tensor, " kept"]:
        """Rows of a batch with which a step goes on; none where it is skipped.

        Args:
            owners: number of each row's owner, in ``topology.owners``.
        """
        turn = self._outage.course.turns[step]
        names = self._outage.problem.parties
        away = {names[device] for device in turn.away}
        gone = [number for number, owner in enumerate(self._topology.owners) if owner in away]
        kept = torch.isin(owners, torch.tensor(gone, dtype=torch.int64), invert=True)
        kept &= turn.hosted
        self._counts["rows_lost"] += int((~kept).sum())
        return kept.nonzero().flatten()

    def step(self, number: int, batch: Samples, owners: Int64[Tensor, " rows"]) -> Tensor | None:
        """See ``Simulated.step``; the batch is what ``present`` left of it."""
        self._draws = child_rng(self._rng, "messages", number)
        self._moving = 0.0
        self._begin(number, owners)
        loss = self._tried(self._outage.course.turns[number], batch)
        if loss is None:
            self._optimizer.step()  # without gradients: its learning rate falls by steps, learned or not
        if number == self._topology.steps - 1:
            self._hand_in()
        return loss

    def losses(self) -> Losses:
        """What was lost so far."""
        return Losses(**self._counts, seconds=self._seconds, seconds_lost=self._seconds_lost)

    def _tried(self, turn: Turn, batch: Samples) -> Tensor | None:
        """The step, or what comes of it."""
        if not len(batch):
            self._counts["steps_without_rows" if turn.hosted else "steps_without_host"] += 1
            self._pass_time(self._watch.undisturbed)
            return None
        sent = self._waves() if self._faults.loss_rate else ()
        told, again = self._told(sent)
        seconds = self._watch.seconds(self._host_of, turn.slow) + self._moving + again
        late = bool(self._faults.deadline) and seconds > self._faults.deadline
        if len(told) == len(sent) and not late:
            self._pass_time(seconds, self._watch.undisturbed)
            self._learned += 1
            loss = self._differentiate(self._step, batch)
            self._optimizer.step()
            self._optimizer.zero_grad()
            return loss
        self._counts["rows_lost"] += len(batch)
        self._counts["steps_unheard" if len(told) < len(sent) else "steps_late"] += 1
        self._pass_time(min(seconds, self._faults.deadline) if late else seconds)
        self._given_up(batch, told if len(told) < len(sent) else None)
        return None

    def _pass_time(self, seconds: float, well_spent: float = 0.0) -> None:
        self._seconds += seconds
        self._seconds_lost += seconds - well_spent

    def _waves(self) -> tuple[Wave, ...]:
        """The messages of this step."""
        owned = {
            place: [tensor.numel() * tensor.element_size() for tensor in tensors.values()]
            for place, tensors in self._owned.items()
        }
        order = [stage.layer.name for stage in self._stages]
        element = self._outage.problem.element
        return waves(self._links, order, self._router.rows, element, owned)

    def _told(self, sent: Sequence[Wave]) -> tuple[Sequence[Wave], float]:
        """Waves up to the one that fails, and the seconds that repetitions take."""
        seconds = 0.0
        for number, wave in enumerate(sent):
            found = self._missed(wave, self._faults.retries)
            seconds += self._watch.again(found)
            if found.failed:
                return sent[: number + 1], seconds
        return sent, seconds

    def _missed(self, wave: Wave, retries: int | None) -> Missed:
        found = missed(wave, self._faults.loss_rate, retries, self._draws)
        self._counts["messages_lost"] += found.messages
        self._counts["bytes_resent"] += found.resent
        self._wire.count(wave.kind, found.resent)
        return found

    def _given_up(self, batch: Samples, told: Sequence[Wave] | None) -> None:
        """Send what is sent of a step that changes nothing; ``told`` None = all of it."""
        buffers = [buffer.clone() for buffer in self._module.buffers()]
        wire, before = self._wire, Counter(self._wire.bytes)
        if told is None:
            self._differentiate(self._step, batch)
        else:
            kinds = {wave.kind for wave in told} - set(BROADCASTS)
            if any(wire.wants(self._step, kind) for kind in kinds):
                self._wire = _Gate(wire, told)
                try:
                    self._differentiate(self._step, batch)
                except _GivenUp:
                    pass
                self._wire = wire
            wire.bytes.clear()
            wire.bytes.update(before)
            for wave in told:
                wire.count(wave.kind, 0 if wave.kind in BROADCASTS else wave.nbytes)
        self._optimizer.zero_grad()
        for buffer, held in zip(self._module.buffers(), buffers, strict=True):
            buffer.copy_(held)

    def _hand_over(self) -> None:
        """Slices change hands at the beginning of a step."""
        for each in self._outage.course.turns[self._step].handovers:
            now = self._belongings.take(each.home)
            if each.reason == "copy":
                self._kept[each.home, each.receiver] = self._learned, now
                self._send(each, now)
                continue
            self._kept[each.home, self._host_of[each.home]] = self._learned, now
            self._host_of[each.home] = each.receiver
            if each.reason == "return":
                self._counts["returns"] += 1
                self._send(each, now)
            else:
                self._go_back(each, each.receiver)

    def _go_back(self, each: Handover, keeper: Party) -> None:
        """A home's slices become what a keeper has of them, or what they were at the start."""
        numbers = self._belongings.count(each.home)
        if each.reason == "take_over":
            learned, held = self._kept[each.home, keeper]
            self._counts["take_overs"] += 1
            self._counts["parameters_stale"] += numbers * (learned < self._learned)
        else:
            held = self._initial[each.home]
            self._counts["parameters_reset"] += numbers
            self._send(each, held)
        self._belongings.put(each.home, held)

    def _send(self, each: Handover, contents: Sequence[Content]) -> None:
        """Slices on their way, one message a tensor, again until they arrive."""
        wanted = self._wire.wants(self._step, "slice_weights")
        sizes: Counter[int] = Counter()
        for name, units, value in self._belongings.sent(each.home, contents):
            nbytes = value.numel() * value.element_size() + HEADER_BYTES
            sizes[nbytes] += 1
            if wanted:
                ends = each.sender, each.receiver
                self._parcels.send(self._step, "slice_weights", name, value.clone(), *ends, units)
            else:
                self._wire.count("slice_weights", nbytes)
        wave = Wave("slice_weights", "", tuple(sorted(sizes.items())))
        again = self._missed(wave, None).resent if self._faults.loss_rate else 0
        self._counts["bytes_copied"] += wave.nbytes
        if each.reason != "copy":
            spent = self._watch.carried(each.sender, each.receiver, wave.nbytes + again)
            self._moving = max(self._moving, spent)

    def _hand_in(self) -> None:
        """After the last step; slices of whoever left for good come from who holds an older copy."""
        handed = {each.home: each.sender for each in self._outage.course.ending}
        for each in self._outage.course.ending:
            if each.reason == "take_over":
                self._go_back(each, each.sender)
            else:
                self._belongings.put(each.home, self._initial[each.home])
                self._counts["parameters_reset"] += self._belongings.count(each.home)
        homes = [piece.party for piece in self._topology.slices]
        pieces = [
            replace(piece, party=handed.get(home, piece.party))
            for home, piece in zip(homes, self._links.pieces, strict=True)
        ]
        self._links = copy(self._links)
        self._links.pieces = tuple(piece for piece in pieces if piece.party != RELEASER)
        self._parcels.slices(self._step, self._links.pieces, to_hosts=False)


class _GivenUp(Exception):
    """A message would be sent that no longer is."""


class _Gate(Wire):
    """Lets through the messages of some waves alone, and counts nothing: that is done beside it."""

    def __init__(self, inner: Wire, told: Sequence[Wave]) -> None:
        super().__init__()
        self._inner, self._told = inner, {(wave.kind, wave.layer) for wave in told}

    def wants(self, step: int, kind: str) -> bool:
        return self._inner.wants(step, kind)

    def derives(self, step: int, kind: str) -> bool:
        return False

    def count(self, kind: str, nbytes: int) -> None:
        pass

    def send(self, message: Message) -> Message:
        layer = "" if message.kind in ANSWERS else message.layer
        if (message.kind, layer) not in self._told:
            raise _GivenUp
        return self._inner.send(message)
