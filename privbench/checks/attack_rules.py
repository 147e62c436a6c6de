"""The rules that every attack keeps."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import torch

from privbench.attacking import attack_seed
from privbench.checks.defense_rules import cited
from privbench.checks.odd_views import ODD
from privbench.checks.stage import Kind, Workshop, least, repaired, swapped
from privbench.contract import (
    GUESS_OF_GOAL,
    Attack,
    Guess,
    InversionGuess,
    LabelGuess,
    MembershipGuess,
    ReconstructionGuess,
    Seat,
    check_words,
    child_rng,
)
from privbench.data.splits import open_population
from privbench.errors import DataError, PluginError, TrainingError, UsageError
from privbench.scoring.score import Score
from privbench.seating import why_not
from privbench.wire import codec

LEAST = 20  # characters of a reason


def cites_its_source(name: str, attack: Attack, shop: Workshop) -> None:
    """``source`` says where it comes from; the docstring what it does."""
    cited(type(attack))


def states_what_it_needs(name: str, attack: Attack, shop: Workshop) -> None:
    """Goal, needs and reads use the contract's words, and a bare seat is refused."""
    check_words(attack)
    if not attack.needs and not attack.reads:
        raise PluginError("it needs nothing and reads nothing: that is a blind guess")
    if not why_not(attack, Seat("nobody", "outsider"), ()):
        raise PluginError("a seat that knows nothing was not refused")


def answers_every_victim(name: str, attack: Attack, shop: Workshop) -> None:
    """The guess is of its goal's type, and covers the candidates, rows or classes asked for."""
    set_up = shop.stage(attack, 0, Kind.REAL)
    people, guesses = set_up.opened.population, shop.guesses(attack, 0, Kind.REAL)
    shape = tuple(people.train.x.shape[1:])
    for view, guess in zip(set_up.views, guesses, strict=True):
        if not isinstance(guess, GUESS_OF_GOAL[attack.goal]):
            raise PluginError(
                f"goal={attack.goal} asks for {GUESS_OF_GOAL[attack.goal].__name__}, "
                f"got {type(guess).__name__}"
            )
        if attack.goal == "membership" and isinstance(guess, MembershipGuess):
            _same("scores", len(guess.scores), len(view.public.candidates or ()))
        if attack.goal == "recurrence" and isinstance(guess, MembershipGuess):
            _same("scores", len(guess.scores), len(view.victims) // 2)
        if isinstance(guess, ReconstructionGuess):
            _same("shape", tuple(guess.x.shape[1:]), shape)
        if isinstance(guess, InversionGuess):
            _same("shape", tuple(guess.x.shape), (people.classes, *shape))
        if isinstance(guess, LabelGuess) and len(guess.labels):
            highest = int(guess.labels.max())
            if highest >= people.classes:
                raise PluginError(f"label {highest} is none of the {people.classes} classes")


def repeats_itself(name: str, attack: Attack, shop: Workshop) -> None:
    """Same view, same seed: the same bits, sealed or not."""
    set_up = shop.stage(attack, 0, Kind.REAL)
    first = codec.encode(tuple(shop.guesses(attack, 0, Kind.REAL)))
    if first == codec.encode(tuple(set_up.guesses("process"))):
        return
    if first != codec.encode(tuple(set_up.guesses("inline"))):
        raise PluginError("two runs with the same seed gave different guesses")
    raise PluginError("sealed and inline runs gave different guesses")


def leaves_things_alone(name: str, attack: Attack, shop: Workshop) -> None:
    """View and global random generators are as they were."""
    set_up = shop.stage(attack, 0, Kind.REAL)
    if "oracle_probabilities" in set_up.views[0].seat.grants:
        raise PluginError("the kit prefers a seat with weights; list released_weights in needs")
    views = codec.decode(codec.encode(set_up.views))
    before, state = codec.encode(views), _randomness()
    rng = torch.Generator().manual_seed(attack_seed(set_up.plan))
    set_up.plan.attack.run_all(views, rng)
    if codec.encode(views) != before:
        raise PluginError("the attack changed its view")
    if _randomness() != state:
        raise PluginError("the attack used a global random generator; draw from rng alone")


def shares_without_mixing(name: str, attack: Attack, shop: Workshop) -> None:
    """``run_all`` equals ``run`` seat by seat."""
    set_up = shop.stage(attack, 0, Kind.REAL)
    rng = torch.Generator().manual_seed(attack_seed(set_up.plan))
    together = shop.guesses(attack, 0, Kind.REAL)
    views = codec.decode(codec.encode(set_up.views))
    for view, guess in zip(views, together, strict=True):
        alone = set_up.plan.attack.run(view, child_rng(rng, view.seat.name))
        _close(alone, guess, view.seat.name)


def is_blind_to_the_truth(name: str, attack: Attack, shop: Workshop) -> None:
    """Another truth behind the same view: the same guess."""
    set_up = shop.stage(attack, 0, Kind.REAL)
    other = set_up.under(swapped(set_up.opened, 1))
    before, after = shop.guesses(attack, 0, Kind.REAL), other.guesses()
    if codec.encode(tuple(before)) != codec.encode(tuple(after)):
        raise PluginError("the guess depends on a truth that the view does not hold")


def survives_odd_views(name: str, attack: Attack, shop: Workshop) -> None:
    """With little in its view, nothing or broken numbers, it answers in finite numbers or says why not."""
    set_up = shop.stage(attack, 0, Kind.REAL)
    seed, quick = attack_seed(set_up.plan), set_up.plan.attack
    for change in ODD:
        view = change(set_up.views[0])
        try:
            guess = quick.run(view, torch.Generator().manual_seed(seed))
        except (UsageError, DataError, TrainingError) as error:
            if len(str(error)) < LEAST:
                raise PluginError(
                    f"of a view that is {change.__name__} it says '{error}' only"
                ) from error
        except Exception as error:
            raise PluginError(
                f"a view that is {change.__name__} ({change.__doc__}) broke it: "
                f"{type(error).__name__}: {error}; expected an answer, or NotApplicable with the reason"
            ) from error
        else:
            if isinstance(guess, MembershipGuess) and view.public.candidates is not None:
                _same("scores", len(guess.scores), len(view.public.candidates))


def is_quiet(name: str, attack: Attack, shop: Workshop, targets: int = 1, draws: int = 20) -> None:
    """On data that hold no information the interval does not exceed the blind value."""
    held = [
        not _beyond(score)
        for seed in range(targets)
        for score in _null_scores(attack, shop, seed, draws)
    ]
    if sum(held) < least(len(held)):
        raise PluginError(
            f"on null data {len(held) - sum(held)} of {len(held)} intervals lie beyond blind "
            f"guessing; at least {least(len(held))} must not"
        )


def is_loud(name: str, attack: Attack, shop: Workshop, targets: int = 1) -> None:
    """On a planted signal the best seat's interval lies beyond the blind value; a double's does not."""
    kind = Kind.RANDOM if attack.goal == "membership" else Kind.REAL
    for seed in range(targets):
        scores = shop.stage(attack, seed, kind).scores(shop.guesses(attack, seed, kind))
        if any(_beyond(score) for score in scores) is attack.double:
            best = max(scores, key=lambda score: score.low)
            raise PluginError(
                ("a double found a signal: " if attack.double else "a planted signal was missed: ")
                + f"{best.metric} {best.value:.3f} [{best.low:.3f}, {best.high:.3f}], "
                f"blind {best.blind:.3f}"
            )


RULES = (
    cites_its_source,
    states_what_it_needs,
    answers_every_victim,
    repeats_itself,
    leaves_things_alone,
    shares_without_mixing,
    is_blind_to_the_truth,
    survives_odd_views,
    is_quiet,
    is_loud,
)


def _null_scores(attack: Attack, shop: Workshop, seed: int, draws: int) -> list[Score]:
    """Scores where there is nothing to find: another truth, or a model of permuted labels."""
    if attack.goal == "inversion":
        set_up = shop.stage(attack, seed, Kind.RANDOM)
        real = open_population(shop.stage(attack, seed, Kind.REAL).plan.data, seed)
        return set_up.scores(shop.guesses(attack, seed, Kind.RANDOM), real)[:1]
    set_up = shop.stage(attack, seed, Kind.REAL)
    guesses = shop.guesses(attack, seed, Kind.REAL)
    one = replace(set_up, views=set_up.views[:1])
    if attack.goal == "recurrence":
        return [one.scores(guesses[:1], repaired(one, draw))[0] for draw in range(draws)]
    return [one.judged(guesses[:1], shop.swapped(set_up, draw))[0] for draw in range(draws)]


def _beyond(score: Score) -> bool:
    return score.low > score.blind


def _same(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise PluginError(f"the guess has {what} {found}, expected {expected}")


def _close(one: Guess, other: Guess, seat: str) -> None:
    mine, theirs = _answers(one), _answers(other)
    if mine.shape != theirs.shape or not torch.allclose(mine, theirs, atol=1e-4, rtol=1e-4):
        raise PluginError(f"run_all and run disagree at seat {seat}")


def _answers(guess: Guess) -> torch.Tensor:
    """What a guess says, as numbers."""
    if isinstance(guess, MembershipGuess):
        return guess.scores
    return guess.labels.double() if isinstance(guess, LabelGuess) else guess.x


def _randomness() -> tuple[bytes, str, str]:
    """State of every global generator."""
    return (
        torch.get_rng_state().numpy().tobytes(),
        repr(np.random.get_state(legacy=False)),  # noqa: NPY002 - read, not drawn from
        repr(random.getstate()),
    )
