"""Scores of an audit: how much epsilon is proven at least, beside what is claimed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from privbench.contract import MembershipGuess, Observed, child_rng
from privbench.errors import PluginError
from privbench.scoring import bounds, power, statistics
from privbench.scoring.rates import clopper_pearson
from privbench.scoring.score import Score, SeatResult

OBSERVATIONS = 1000  # on each side, below which a bound of every step says too little
FEWEST = 10  # of each side, so that both halves hold some
DELTA = 1e-5  # where nothing is claimed
BOTH = 0.975  # level of each of two bounds that hold together at 95 %
MET = "assumes that canaries of one training do not influence one another, so it accuses nobody by itself"


@dataclass(frozen=True)
class Claim:
    """What the accountant says of what was seen.

    Args:
        epsilon, delta: infinite = nothing is claimed.
        noise: multiplier that is claimed for each step, None = unknown.
        bill: epsilon that so many steps of a noise multiplier and sampling rate spend.
    """

    epsilon: float = math.inf
    delta: float = DELTA
    noise: float | None = None
    bill: Callable[[float, float, int], float | None] = lambda noise, rate, steps: None

    def words(self) -> str:
        """For a note."""
        if not math.isfinite(self.epsilon):
            return f"nothing is claimed here; delta {self.delta:g}"
        return f"claimed: epsilon {self.epsilon:.3g} at delta {self.delta:g}"


NOTHING = Claim()


def score_canaries(
    scores: np.ndarray,
    inserted: np.ndarray,
    seat: str,
    claim: Claim,
    share: float,
    rng: torch.Generator,
) -> tuple[Score, ...]:
    """Bounds from guesses at which canaries were among the private records.

    Args:
        scores: higher = more likely inserted.
        share: of the canaries about which a guess is made, fixed beforehand: half of the guesses say that
            the canaries with the highest scores were inserted, half that the lowest were not.

    Returns:
        ``epsilon_one_run`` (headline), ``epsilon_one_run_gaussian``, ``epsilon_two_rates`` and
        ``epsilon_gaussian``.
    """
    draws = partial(_draws, rng, seat)
    canaries = len(scores)
    guesses = 2 * max(1, round(share * canaries / 2))
    correct = _correct(scores, inserted, guesses, draws("ties"))
    made = (canaries, guesses, claim.epsilon, claim.delta)
    ends = _judged(scores, inserted, draws("threshold"))
    counted = f"{correct} of {guesses} guesses right, {canaries} canaries"
    curve = bounds.one_run_gaussian(correct, guesses, canaries, claim.delta)
    rates = mu = 0.0
    if ends[1] and ends[3]:
        rates, mu = bounds.two_rates(*ends, claim.delta), bounds.two_rates_gaussian(*ends)
    seen = (
        "{} of {} inserted and {} of {} left out lie above a threshold from the other half".format(
            *ends
        )
    )
    found = [
        ("one_run", bounds.one_run(correct, guesses, canaries, claim.delta), True, counted),
        ("one_run_gaussian", curve, True, f"{counted}; for mechanisms of a Gaussian curve"),
        ("two_rates", rates, False, f"{seen}; {MET}"),
        ("gaussian", bounds.epsilon_of(mu, claim.delta), False, f"{seen}; {MET}"),
    ]
    return tuple(
        _score(
            name,
            value,
            seat,
            inserted,
            claim,
            power.of_canaries(name, *made, draws(name)),
            note,
            sound,
        )
        for name, value, sound, note in found
    )


def score_steps(
    guess: MembershipGuess, seat: str, observed: Observed, claim: Claim, rng: torch.Generator
) -> SeatResult:
    """A bound from what every step released along its canaries.

    A Gaussian bound on what a canary that was drawn changes, and a bound on how often one is drawn,
    each at 97.5 %, are composed over the steps by the claim's own accountant.

    Returns:
        ``epsilon_composed``.

    Raises:
        PluginError: not one score an observation.
    """
    bits = observed.coins[observed.drawn].numpy()
    if len(guess.scores) != len(bits):
        raise PluginError(
            f"expected one score for each of {len(bits)} observations, got {len(guess.scores)}"
        )
    scores = guess.scores.double().cpu().numpy()
    if guess.threshold is None:
        ends = _judged(scores, bits, _draws(rng, seat, "threshold"))
    else:
        ends = _counts(scores, bits, guess.threshold)
    enough = min(ends[1], ends[3]) >= OBSERVATIONS
    steps, drawn = len(observed.drawn), int(observed.drawn.sum())
    rate = clopper_pearson(drawn, observed.drawn.numel(), 2 * BOTH - 1).low
    bill = partial(_billed, claim, rate=rate, steps=steps)
    mu = bounds.two_rates_gaussian(*ends, BOTH) if ends[1] and ends[3] else 0.0
    chance = None
    if claim.noise and math.isfinite(claim.epsilon) and enough:
        mus = power.halved_noise(ends[1], ends[3], claim.noise, BOTH, _draws(rng, seat, "power"))
        chance = power.share_above(mus, bill, claim.epsilon)
    note = (
        f"a step: mu at least {mu:.3g} where a canary is drawn, drawn at a rate of {rate:.3g} at least; "
        f"{ends[0]} of {ends[1]} and {ends[2]} of {ends[3]} observations lie above the threshold; "
        f"composed over {steps} steps"
        + ("" if enough else f"; fewer than {OBSERVATIONS:,} observations a side")
    )
    return SeatResult(
        seat, (_score("composed", bill(mu), seat, bits, claim, chance, note, enough),)
    )


def _billed(claim: Claim, mu: float, *, rate: float, steps: int) -> float:
    """Epsilon of so many steps with this mu where a record is drawn; 0 where it shows none."""
    return (claim.bill(1 / mu, rate, steps) or 0.0) if mu > 0 else 0.0


def _correct(
    scores: np.ndarray, inserted: np.ndarray, guesses: int, rng: np.random.Generator
) -> int:
    """Right ones of a fixed number of guesses, half at each end; ties are broken at random."""
    mixed = rng.permutation(len(scores))
    order = mixed[np.argsort(scores[mixed], kind="stable")]
    half = guesses // 2
    return int(inserted[order[-half:]].sum() + (~inserted[order[:half]]).sum())


def _judged(
    scores: np.ndarray, inserted: np.ndarray, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Counts on one half, at a threshold from the other."""
    if min(inserted.sum(), (~inserted).sum()) < FEWEST:
        return 0, 0, 0, 0
    threshold, second = bounds.chosen_threshold(scores, inserted, rng)
    return _counts(scores[second], inserted[second], threshold)


def _counts(
    scores: np.ndarray, inserted: np.ndarray, threshold: float
) -> tuple[int, int, int, int]:
    """True positives of positives, false positives of negatives."""
    above, bits = scores >= threshold, inserted.astype(bool)
    positives, negatives = int(bits.sum()), int((~bits).sum())
    return int((above & bits).sum()), positives, int((above & ~bits).sum()), negatives


def _draws(rng: torch.Generator, seat: str, name: str) -> np.random.Generator:
    return statistics.numpy_rng(child_rng(rng, "audit", seat, name))


def _score(
    name: str,
    bound: float,
    seat: str,
    inserted: np.ndarray,
    claim: Claim,
    chance: float | None,
    note: str,
    sound: bool,
) -> Score:
    told = (
        ""
        if chance is None
        else (
            f"; power {chance:.2g}: so often ideal canaries would exceed the claim, had the noise been half"
        )
    )
    return Score(
        "audit",
        f"epsilon_{name}",
        seat,
        bound,
        bound,
        math.inf,
        n=int(inserted.sum()),
        n_negative=int((~inserted.astype(bool)).sum()),
        blind=0.0,
        blind_name="no information",
        reliable=sound,
        note=f"at least {bound:.3g} with 95 %; {claim.words()}; {note}{told}",
        claim=claim.epsilon if math.isfinite(claim.epsilon) else None,
        power=chance,
    )
