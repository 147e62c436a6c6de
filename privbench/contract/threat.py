"""Who the adversary is: a threat names seats, a seat states what its position knows."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from privbench.contract.message import Party
from privbench.contract.topology import Topology
from privbench.errors import UsageError

GRANTS = (
    "labels",  # of the victims
    "candidates",
    "auxiliary",
    "recipe",
    "prefix_weights",  # all layers before what it sees, at that step
    "own_weights",  # of its slice
    "model_weights",  # the whole model at every step it sees
    "initial_weights",  # step 0 is public
    "released_weights",
    "stale_weights",  # released weights, used on earlier traffic
    "oracle_probabilities",
    "oracle_labels",
    "own_samples",
    "every_step",  # what each step of training released, along canaries' directions
)

PAIRS = ("prefix", "own", "chosen", "query", "none")

STEPS = re.compile(r"all|epoch|(first|last):[0-9]+")

COLUMNS = ("infrastructure", "peer", "network", "outsider")


@dataclass(frozen=True)
class Budget:
    """What an attacker may spend.

    Raises:
        UsageError: less than nothing, or no number of models.
    """

    shadow_models: int = 16  # complementary halves: an even number
    queries: int | None = None  # None = unlimited, still counted

    def __post_init__(self) -> None:
        for name, value, word in (
            ("shadow_models", self.shadow_models, ""),
            ("queries", self.queries, ", or null for as many as it likes"),
        ):
            if (value is None and not word) or (value is not None and value < 0):
                shown = "null" if value is None else value
                raise UsageError(
                    f"threat.budget.{name}={shown}; expected a whole number, at least 0{word}"
                )


@dataclass(frozen=True)
class Seat:
    """One position of an adversary.

    Args:
        name: how tables call it.
        parties: those it controls; it sees what they send and receive.
        links: pairs of parties whose link it taps; ``()`` = none.
        everything: it taps every link.
        grants: what it knows beside traffic (``GRANTS``).
        pairs: how it gets (input, activation) pairs (``PAIRS``).
        column: with which seats of other regimes it may be compared (``COLUMNS``).
    """

    name: str
    column: str
    parties: tuple[Party, ...] = ()
    links: tuple[tuple[Party, Party], ...] = ()
    everything: bool = False
    grants: frozenset[str] = frozenset()
    pairs: str = "none"

    def __post_init__(self) -> None:
        unknown = sorted(self.grants - set(GRANTS))
        if unknown:
            raise UsageError(f"unknown grant {unknown}; grants are {', '.join(GRANTS)}")
        if self.pairs not in PAIRS:
            raise UsageError(f"pairs='{self.pairs}' is unknown; expected one of {', '.join(PAIRS)}")
        if self.column not in COLUMNS:
            raise UsageError(f"column '{self.column}' is unknown; columns are {', '.join(COLUMNS)}")

    def sees(self, sender: Party, receiver: Party) -> bool:
        """Does a message between these two pass by this seat?"""
        return (
            self.everything
            or sender in self.parties
            or receiver in self.parties
            or (sender, receiver) in self.links
            or (receiver, sender) in self.links
        )


@dataclass(frozen=True, kw_only=True)
class Threat(ABC):
    """A kind of adversary.

    Args:
        steps: which recorded steps it looks at: ``all``, ``epoch`` (those of the last epoch),
            ``first:N`` or ``last:N``.
        budget: what it may spend.
        seat: attack this seat alone (its number, or the name that tables give it), None = every seat.
        sample: attack this many seats, drawn at random, None = every seat.

    ``name`` is how a user calls it, ``kinds`` are the messages that its seats keep, ``tampers`` says
    whether it may deviate from the protocol. ``stronger`` lists settings, each with its value, under
    which its seats know more: whoever lacks something for an attack is told of them.

    Raises:
        UsageError: ``steps`` or ``sample`` is nothing that can be.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    tampers: ClassVar[bool] = False
    stronger: ClassVar[tuple[tuple[str, object], ...]] = ()

    steps: str = "epoch"
    budget: Budget = field(default_factory=Budget)
    seat: int | str | None = None
    sample: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.steps, str) or not STEPS.fullmatch(self.steps):
            shown = list(self.steps) if isinstance(self.steps, tuple) else self.steps
            raise UsageError(
                f"threat.steps={shown} is unknown; expected all, epoch, first:N or last:N"
            )
        if self.sample is not None and self.sample < 1:
            raise UsageError(
                f"threat.sample={self.sample}; expected at least 1 seat, or null for every seat"
            )

    @abstractmethod
    def seats(self, topology: Topology) -> tuple[Seat, ...]:
        """Every seat that such an adversary can take; empty if the regime has none."""

    def looks_at(self, recorded: tuple[int, ...], steps_per_epoch: int) -> tuple[int, ...]:
        """The recorded steps that this threat keeps."""
        word, _, count = self.steps.partition(":")
        if word == "all":
            return recorded
        if word == "epoch":
            start = recorded[-1] - steps_per_epoch if recorded else 0
            return tuple(step for step in recorded if step > start)
        if word == "first":
            return recorded[: int(count)]
        return recorded[-int(count) :] if int(count) else ()
