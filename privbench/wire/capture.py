"""What a recording keeps: the policy that a user asks for, and what it comes to in one run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import KINDS, ROW_KINDS, Message, Party, Seat, Topology, child_rng
from privbench.errors import UsageError
from privbench.wire.router import Router

HALVED = ("samples", "activation", "partial_sum")
"""Kinds whose numbers are near one: float16 keeps more of them than bfloat16, as far as it reaches."""

REACH = 65504.0  # largest float16


@dataclass(frozen=True, kw_only=True)
class Capture:
    """What a recording keeps.

    Messages with rows are kept at every ``every``-th step, or at ``reservoir`` steps drawn uniformly
    from the whole run. Parameter tensors (updates, stem gradients, broadcasts, and the weights in
    force) are large: they are kept at the first ``first`` steps, at those of the last epoch, and at
    those of the reservoir.

    All draws come from the run's seed and from nothing that training draws.

    Raises:
        UsageError: a number is too small, a kind is unknown, or two policies contradict each other.
    """

    every: int = 1  # steps between recorded ones
    first: int = 8  # steps, from the start, whose parameter tensors are kept
    last: bool = True  # keep those of the last epoch too
    kinds: tuple[str, ...] = ()  # of message, nothing else is kept; () = all
    links: tuple[int | str | tuple[int | str, ...], ...] = ()  # devices, or pairs of them; () = all
    reservoir: int = 0  # steps of the whole run, in place of every k-th; 0 = every k-th
    half: bool = False  # keep numbers of messages with rows in 16 bits
    samples: int = (
        0  # members whose rows are kept, at all steps and in shuffled order; 0 = all rows
    )

    def __post_init__(self) -> None:
        for name, least in (("every", 1), ("first", 0), ("reservoir", 0), ("samples", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise UsageError(
                    f"capture.{name}={value}; expected a whole number, at least {least}"
                )
        for name in ("last", "half"):
            if type(getattr(self, name)) is not bool:
                raise UsageError(f"capture.{name}={getattr(self, name)}; expected true or false")
        self._check_kinds()
        pairs = self._listed("links", "[3,7]")
        links = tuple(tuple(each) if isinstance(each, list) else each for each in pairs)
        for each in links:
            _check_link(each)
        object.__setattr__(self, "links", links)  # a yaml has lists within lists
        clashes = {
            "every": self.every > 1 and self.reservoir > 0,
            "samples": self.samples > 0 and (self.every > 1 or self.reservoir > 0),
        }
        if clashes["every"]:
            raise UsageError(
                f"capture.reservoir={self.reservoir} draws steps from the whole run and "
                f"capture.every={self.every} keeps one in {self.every}; type one of them"
            )
        if clashes["samples"]:
            other = f"every={self.every}" if self.every > 1 else f"reservoir={self.reservoir}"
            raise UsageError(
                f"capture.samples={self.samples} keeps some members at all steps and capture.{other} "
                "keeps some steps; type one of them"
            )

    def __str__(self) -> str:
        """What differs from the default, as typed; ``every step`` where nothing does."""
        told = [
            f"{each.name}={_typed(getattr(self, each.name))}"
            for each in fields(self)
            if getattr(self, each.name) != each.default
        ]
        return " ".join(told) or "every step"

    def _check_kinds(self) -> None:
        unknown = [kind for kind in self._listed("kinds", "[activation]") if kind not in KINDS]
        if unknown:
            raise UsageError(
                f"capture.kinds names {', '.join(map(str, unknown))}; kinds are {', '.join(KINDS)}"
            )

    def _listed(self, name: str, example: str) -> tuple[object, ...]:
        value = getattr(self, name)
        if not isinstance(value, tuple):
            raise UsageError(
                f"capture.{name}={value}; expected a list, for example capture.{name}={example}"
            )
        return value


def _typed(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(map(_typed, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_link(link: object) -> None:
    ends = link if isinstance(link, tuple) else (link,)
    known = all(type(end) in (int, str) for end in ends)
    if len(ends) not in (1, 2) or not known or len(set(ends)) < len(ends):
        raise UsageError(
            f"capture.links holds {_typed(link)}; expected a device (3, or its name) or a pair of two, "
            "for example capture.links=[3,[4,7]]"
        )


@dataclass(frozen=True, eq=False)
class Policy:
    """A capture policy in one run.

    Args:
        capture: as asked for.
        topology: of the run.
        seed: of the draws.

    Raises:
        UsageError: it names a link of a party that there is not.
    """

    capture: Capture
    topology: Topology
    seed: int = 0

    def __post_init__(self) -> None:
        self.seat  # noqa: B018 - refused before training, not at the first message

    def keeps(self, step: int, kind: str) -> bool:
        """Is a message of this kind kept at this step?"""
        if self.capture.kinds and kind not in self.capture.kinds:
            return False
        if kind in ROW_KINDS:
            return step in self._drawn if self.capture.reservoir else step % self.capture.every == 0
        return self.holds(step)

    def holds(self, step: int) -> bool:
        """Are the weights in force kept at this step?"""
        late = step >= self.topology.steps - self.topology.steps_per_epoch
        return step < self.capture.first or (self.capture.last and late) or step in self._drawn

    def along(
        self, message: Message, owners: Int64[Tensor, " rows"], router: Router
    ) -> Iterator[Message]:
        """What is kept of a message that crosses some links: itself, or its parts on these."""
        if self.seat is None:
            yield message
        else:
            yield from router.cut(message, owners, self.seat)

    def order(self, step: int, chosen: Int64[Tensor, " rows"]) -> Int64[Tensor, " rows"]:
        """The rows of a step in another order: those that are kept first.

        Args:
            chosen: 1 for each row that is kept, 0 for the others.

        Returns:
            row ``order[i]`` is called ``i`` in the recording.
        """
        rng = child_rng(torch.Generator().manual_seed(self.seed), "capture", "rows", step)
        drawn = torch.randperm(len(chosen), generator=rng)
        return drawn[(1 - chosen[drawn]).argsort(stable=True)]

    @cached_property
    def _drawn(self) -> frozenset[int]:
        """Steps of the reservoir.

        A run says how many steps it takes before the first, so that they are drawn at once: a step
        that would be thrown out later is never written.
        """
        rng = child_rng(torch.Generator().manual_seed(self.seed), "capture", "reservoir")
        drawn = torch.randperm(self.topology.steps, generator=rng)[: self.capture.reservoir]
        return frozenset(drawn.tolist())

    @cached_property
    def seat(self) -> Seat | None:
        """Who would see what is kept; None = all is kept."""
        if not self.capture.links:
            return None
        ends = [each if isinstance(each, tuple) else (each,) for each in self.capture.links]
        named = [tuple(self._party(end) for end in each) for each in ends]
        parties = tuple(each[0] for each in named if len(each) == 1)
        links = tuple((each[0], each[1]) for each in named if len(each) == 2)
        return Seat("capture", "network", parties, links)

    def _party(self, end: int | str) -> Party:
        name = f"device-{end}" if isinstance(end, int) else end
        if name not in self.topology.parties:
            shown = self.topology.parties
            told = shown if len(shown) < 9 else (*shown[:3], "…", *shown[-3:])
            raise UsageError(
                f"capture.links names '{name}', which takes no part; parties are {', '.join(told)}"
            )
        return name


def renumbered(message: Message, place: Int64[Tensor, " rows"], kept: int) -> Message | None:
    """A message in the recording's row numbers, with the rows that are kept; None = it has none.

    Args:
        place: new number of each row of the step.
        kept: rows from this number on are not kept; parameter tensors name them nevertheless, since
            they were computed from them.
    """
    rows = place[message.rows]
    if message.kind not in ROW_KINDS:
        return replace(message, rows=rows.sort().values) if len(rows) else message
    rows, order = rows.sort()
    count = int((rows < kept).sum())
    if not count:
        return None
    chosen = order[:count]
    return replace(
        message, rows=rows[:count], payload=message.payload[chosen.to(message.payload.device)]
    )


def halved(message: Message) -> Message:
    """A message with rows, its numbers in 16 bits; everything else as it is.

    float16 holds 11 bits up to 65504. Gradients, which may be tiny, and what is larger become
    bfloat16: 8 bits with the reach of float32. Parameter tensors stay whole, since attacks look at
    differences of them.
    """
    payload = message.payload
    if message.kind not in ROW_KINDS or not payload.is_floating_point() or payload.itemsize <= 2:
        return message
    near = message.kind in HALVED and (not payload.numel() or float(payload.abs().max()) <= REACH)
    return replace(message, payload=payload.to(torch.float16 if near else torch.bfloat16))


def drawn_members(count: int, of: int, seed: int) -> Int64[Tensor, " drawn"]:
    """Which members' rows are kept: ``count`` places of so many."""
    rng = child_rng(torch.Generator().manual_seed(seed), "capture", "samples")
    return torch.randperm(of, generator=rng)[:count]
