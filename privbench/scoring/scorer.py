"""The scorer: alone with the truth, it compares guesses with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from privbench.contract import (
    GUESS_OF_GOAL,
    Guess,
    InversionGuess,
    LabelGuess,
    MembershipGuess,
    Net,
    ReconstructionGuess,
    Samples,
    child_rng,
    no_rows,
)
from privbench.data.splits import Opened
from privbench.errors import NotApplicable, PluginError
from privbench.scoring.audit import NOTHING, Claim, score_canaries, score_steps
from privbench.scoring.bench import Bench
from privbench.scoring.devices import Devices
from privbench.scoring.evaluator import perceives, perceptual, train_evaluator
from privbench.scoring.inversion import score_inversion
from privbench.scoring.label import score_label
from privbench.scoring.membership import score_membership, score_recurrence
from privbench.scoring.prior import membership_from_inputs
from privbench.scoring.reconstruction import score_reconstruction
from privbench.scoring.score import SeatResult
from privbench.scoring.vulnerable import People

Keep = Callable[[Callable[[], Net]], Net]

NOBODY: frozenset[int] = frozenset()


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores guesses about one target.

    Args:
        opened: data, splits and truth.
        seed: of decoys, folds and resamples.
        device: where the evaluator computes.
        keep: gets the evaluator from where it is stored, or makes and stores it.
        claim: what the target's accountant says of what the seats saw, for audits.
        guesses: share of the canaries about which an audit guesses.
    """

    opened: Opened
    seed: int
    device: str = "cpu"
    keep: Keep = lambda make: make()
    claim: Claim = NOTHING
    guesses: float = 0.5

    def score(
        self,
        goal: str,
        seat: str,
        guess: Guess,
        *,
        owned: frozenset[int] = NOBODY,
        by_construction: bool = False,
        victims: Int64[Tensor, "n 2"] | None = None,
        seen: Int64[Tensor, "m 2"] | None = None,
    ) -> SeatResult:
        """Compare one seat's guess, and the blind one, with the truth.

        Args:
            owned: numbers of the seat's own places among the owners; its records do not count.
            victims: rows that the attack was asked for (reconstruction, labels, recurrence).
            seen: rows that the seat saw in traffic.

        Raises:
            NotApplicable: the split has no records for this goal.
            PluginError: the guess is of the wrong type, shape or rows.
        """
        seen = no_rows().reshape(0, 2) if seen is None else seen
        victims = seen if victims is None else victims
        if isinstance(guess, MembershipGuess) and goal == "membership":
            result = self._membership(guess, seat, owned)
        elif isinstance(guess, MembershipGuess) and goal == "recurrence":
            samples = self.opened.truth.sample_of(victims)
            result = score_recurrence(guess, seat, samples[0::2], samples[1::2], self._rng)
        elif isinstance(guess, MembershipGuess) and goal == "audit":
            result = self._audit(guess, seat)
        elif isinstance(guess, ReconstructionGuess) and goal == "reconstruction":
            result = score_reconstruction(guess, seat, self._bench, victims, seen, owned)
        elif isinstance(guess, InversionGuess) and goal == "inversion":
            classes = self.opened.population.classes
            result = score_inversion(
                guess, seat, self._evaluator, self._prior, classes, self.device
            )
        elif isinstance(guess, LabelGuess) and goal == "label":
            classes = self.opened.population.classes
            result = score_label(guess, seat, self._bench, classes, victims, seen, owned)
        else:
            kinds = ", ".join(
                f"{name} with a {kind.__name__}" for name, kind in GUESS_OF_GOAL.items()
            )
            raise PluginError(f"goal '{goal}' got a {type(guess).__name__}; expected {kinds}")
        capture = self._capture(seen, owned)
        scores = [
            replace(score, by_construction=by_construction, capture=capture)
            for score in result.scores
        ]
        return replace(result, scores=tuple(scores))

    def _membership(self, guess: MembershipGuess, seat: str, owned: frozenset[int]) -> SeatResult:
        truth, member = self.opened.truth, self.opened.truth.member
        if member is None or truth.places is None:
            raise NotApplicable(
                "membership needs members and non-members drawn from one pool, data.split=official "
                "has none; type data.split=thirds"
            )
        own = truth.owned(owned)[truth.places.clamp(min=0)] & member
        known = self._blind_membership, self._rng, self._people, self._devices
        result = score_membership(guess, seat, member, own, *known)
        if not self.opened.canary:
            return result
        asked = (~own).numpy()
        scores, bits = guess.scores.double().cpu().numpy()[asked], member.numpy()[asked]
        audit = score_canaries(scores, bits, seat, self.claim, self.guesses, self._rng)
        return replace(result, scores=(*result.scores, *audit))

    def _audit(self, guess: MembershipGuess, seat: str) -> SeatResult:
        observed = self.opened.truth.observed
        if observed is None:
            raise NotApplicable(
                "this training carried no gradient canaries; type regime=dpsgd_audited"
            )
        return score_steps(guess, seat, observed, self.claim, self._rng)

    def _capture(self, seen: Tensor, owned: frozenset[int]) -> float | None:
        """Share of the members that the seat saw, its own left out on both sides."""
        if not len(seen):
            return None
        truth = self.opened.truth
        saw = torch.zeros(len(truth.train), dtype=torch.bool)
        saw[truth.sample_of(seen)] = True
        others = ~truth.owned(owned)
        return float((saw & others).sum() / others.sum().clamp(min=1))

    @property
    def _rng(self) -> torch.Generator:
        return child_rng(torch.Generator().manual_seed(self.seed), "scorer")

    @cached_property
    def _blind_membership(self) -> np.ndarray:
        member, candidates = self.opened.truth.member, self.opened.candidates
        if member is None or candidates is None:
            return np.empty(0)
        return membership_from_inputs(candidates, member, child_rng(self._rng, "blind"))

    @cached_property
    def _people(self) -> People | None:
        candidates, public = self.opened.candidates, self.opened.population.auxiliary
        if candidates is None:
            return None
        rng = child_rng(self._rng, "people")
        return People.of(candidates, public, self.opened.numbers, rng)

    @cached_property
    def _devices(self) -> Devices | None:
        truth, candidates = self.opened.truth, self.opened.candidates
        if truth.places is None or candidates is None or self.opened.canary:
            return None
        return Devices.of(truth.places, truth.owners, candidates.y, self._rng)

    @cached_property
    def _prior(self) -> Samples:
        people = self.opened.population
        return people.held_out if people.auxiliary is None else people.auxiliary

    @cached_property
    def _bench(self) -> Bench:
        people = self.opened.population
        rng = child_rng(self._rng, "reconstruction")
        shape, perceive = people.train.x.shape[1:], None
        if self.opened.evaluator is not None and perceives(shape) and people.train.y is not None:
            perceive = self._perceived
        known = (self.opened.truth, people.held_out, self._prior, people.auxiliary)
        return Bench(*known, rng, perceive)

    def _perceived(self, x: Tensor, y: Tensor) -> np.ndarray:
        return perceptual(self._evaluator, x, y, self.device)

    @cached_property
    def _evaluator(self) -> nn.Module:
        if self.opened.evaluator is None:
            raise NotApplicable(
                "inversion is judged by a network trained on records kept for it, and this split has "
                "none; type data.split=thirds"
            )
        rng = child_rng(self._rng, "evaluator")
        classes = self.opened.population.classes
        records = self.opened.evaluator
        net = self.keep(lambda: train_evaluator(records, classes, rng, self.device))
        return net.module().to(self.device)
