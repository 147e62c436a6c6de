"""The attack: from a view to a guess."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import torch

from privbench.contract.actor import Actor
from privbench.contract.guess import GUESS_OF_GOAL, Guess
from privbench.contract.message import KINDS
from privbench.contract.progress import counted
from privbench.contract.recipe import child_rng
from privbench.contract.threat import GRANTS, Budget
from privbench.contract.view import Fitted, Own, Public, View, Weights
from privbench.errors import PluginError

GOALS = (
    *("membership", "recurrence", "reconstruction", "inversion", "label"),
    *("attribute", "property", "audit"),
)


COVERED = {
    "released": ("released", "api", "iterates"),
    "updates": ("released", "api", "server", "server_active", "client", "wire"),
}
"""Threats that a guarantee covers, by what it is for. That of a released model: its answers, too, and the
steps that it came from (accountants assume that each is seen). That of every update of a client: all
who hear updates or sums of them, and what is made of these."""


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What a fit is given: public knowledge, and the seat's weights and own samples if it asks.

    ``workers``: so many processes of one thread may train side by side; results must not depend on it.
    """

    public: Public
    budget: Budget
    weights: tuple[Weights, ...] = ()
    own: Own | None = None
    device: str = "cpu"
    workers: int = 1


class Fit(ABC):
    """The part of an attack that costs training. Run once, stored, shared by equal fits.

    Subclasses are frozen dataclasses; two fits with the same class, fields and knowledge are one.
    ``gets`` lists what of the seat it asks for beside ``Public``: ``weights``, ``own``.
    """

    gets: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def fit(self, knowledge: Knowledge, rng: torch.Generator) -> Fitted:
        """Train on what is known."""


class Attack(ABC):
    """An attack technique. Subclasses are frozen dataclasses with keyword-only fields.

    Class constants, readable without running it:

    - ``goal``: what is guessed (``GOALS``).
    - ``needs``: grants that the seat must have; ``"a|b"`` = one of them; ``"pairs"`` = any way
      of getting (input, activation) pairs.
    - ``reads``: message kinds; the view must hold at least one of them (empty = no traffic).
    - ``source``: the paper: authors, title, year, link; ``none: `` and the reason where there is none.
    - ``by_construction``: it succeeds because of what the protocol sends, not by inference.
    - ``actor``: class of its active part (``acting`` builds it); only a threat that tampers admits it.
    - ``double``: it guesses blind on purpose; the conformance kit asks it to be quiet everywhere.
    - ``conformance``: settings with which the conformance kit runs it, where the defaults take long.

    Raises:
        PluginError: one of these constants holds a word that the contract does not know.
    """

    goal: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[tuple[str, ...]] = ()
    source: ClassVar[str]
    by_construction: ClassVar[bool] = False
    actor: ClassVar[type[Actor] | None] = None
    double: ClassVar[bool] = False
    conformance: ClassVar[Mapping[str, object]] = MappingProxyType({})

    def __post_init__(self) -> None:
        check_words(self)

    def fits(self) -> tuple[Fit, ...]:
        """Fits to be run before; their results are ``view.fitted``, in this order."""
        return ()

    def acting(self) -> Actor | None:
        """Its active part, fresh, with the settings that it takes from this attack's; None = it has none."""
        return None if self.actor is None else self.actor()

    @abstractmethod
    def run(self, view: View, rng: torch.Generator) -> Guess:
        """Guess from the view alone; all randomness comes from ``rng``."""

    def run_all(self, views: Sequence[View], rng: torch.Generator) -> list[Guess]:
        """One guess a view. Override to share work; the result must equal seat by seat."""
        return [self.run(view, child_rng(rng, view.seat.name)) for view in counted(views)]


def check_words(attack: Attack) -> None:
    """Do goal, needs and reads use words of the contract?

    Raises:
        PluginError: one does not; the message gives the right ones.
    """
    name = type(attack).__name__
    goal = str(getattr(attack, "goal", None))
    if goal in GOALS and goal not in GUESS_OF_GOAL:
        raise PluginError(
            f"{name}: goal='{goal}' has no guess and no score yet; expected "
            f"{', '.join(GUESS_OF_GOAL)}"
        )
    _known(f"{name}: goal='{goal}'", goal, GUESS_OF_GOAL, "goals")
    if attack.actor is None and type(attack).acting is not Attack.acting:
        raise PluginError(f"{name}.acting builds an actor; expected its class as {name}.actor")
    for constant, words, what in (
        ("needs", (*GRANTS, "pairs"), "grants"),
        ("reads", KINDS, "kinds"),
    ):
        listed = getattr(attack, constant)
        if isinstance(listed, str):
            raise PluginError(f"{name}: {constant}='{listed}'; expected a tuple: ('{listed}',)")
        for word in (part for entry in listed for part in entry.split("|")):
            _known(f"{name}: {constant} names '{word}', which", word, words, what)


def _known(subject: str, word: str, known: Iterable[str], what: str) -> None:
    names = tuple(known)
    if word in names:
        return
    near = difflib.get_close_matches(word, names, n=1)
    mean = f"did you mean '{near[0]}'? " if near else ""
    raise PluginError(f"{subject} is unknown; {mean}{what} are {', '.join(names)}")


@dataclass(frozen=True)
class PrivacyCost:
    """A differential-privacy guarantee, and what it is for: ``released``, ``updates`` or ``none``."""

    epsilon: float
    delta: float
    covers: str = field(default="released")

    def holds_for(self, threat: str) -> bool:
        """Does it cover what such an adversary sees?"""
        return covered(self.covers, threat)


def covered(covers: str, threat: str) -> bool:
    """Does a guarantee for that cover what such an adversary sees?"""
    return threat == covers or threat in COVERED.get(covers, ())
