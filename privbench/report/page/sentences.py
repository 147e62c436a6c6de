"""What one run found, as a sentence that needs no knowledge of metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from privbench.report.page.words import SHARES, capital, listed, of_hundred, seats, share, who

OF_PAIRS = ("membership", "recurrence")
"""Goals whose headline is the share of pairs, one of each kind, that are told apart; half is guessing."""


@dataclass(frozen=True)
class Seen:
    """One seat's headline score; ``clear``: its whole interval lies on the leaking side of blind."""

    seat: str
    value: float
    n: int
    blind: float
    verdict: str
    clear: bool


@dataclass(frozen=True)
class Finding:
    """What one run found.

    Args:
        threat, column, goal, metric: what was tried, from where.
        seats: those that were attacked.
        main: the score that stands for all: of many seats the worst.
        attack: with its variant.
        refused: seats of that threat that could not be attacked.
        tried: runs of that threat and goal, of which this is the most telling.
    """

    threat: str
    column: str
    goal: str
    metric: str
    seats: tuple[Seen, ...]
    main: Seen
    attack: str
    refused: int = 0
    tried: int = 1


def sentence(finding: Finding, thing: str) -> str:
    """What a run found, in a sentence or three; ``thing`` is what is private."""
    if finding.goal == "audit":
        return capital(_audited(finding))
    many = len(finding.seats) > 1
    told = _of_many(finding, thing) if many else _of_one(finding, thing)
    tried = f" Most telling of {finding.tried} runs: {finding.attack}." if finding.tried > 1 else ""
    return capital(told) + tried


def gain(finding: Finding, seen: Seen) -> float:
    """How far between guessing and knowing all."""
    return 2 * abs(seen.value - 0.5) if finding.goal in OF_PAIRS else seen.value


def tier(value: float) -> int:
    """Which word a share has, the strongest first."""
    words = [word for _, word in SHARES]
    return words.index(share(value)) if math.isfinite(value) else len(words)


def _audited(finding: Finding) -> str:
    """What an audit says of the privacy that is claimed."""
    main = finding.main
    least = (
        f"a loss of at least epsilon {main.value:.3g} is proven"
        if main.value > 0
        else "it proves no loss"
    )
    ways = {
        "claim broken": f"an audit breaks the privacy claim: {least}, more than is claimed",
        "consistent": f"an audit is consistent with the privacy claim: {least}, and an audit like this one "
        "would most likely have found the noise halved",
        "no claim": f"an audit has no privacy claim to be held against here: {least}",
    }
    weak = f"an audit was too weak to tell whether the privacy claim holds: {least}"
    return ways.get(main.verdict, weak) + "."


def _of_one(finding: Finding, thing: str) -> str:
    main, subject = finding.main, who(finding.threat, finding.main.seat)
    proof = _proof(finding, main)
    like = ", exactly as after centralized training" if main.verdict == "as centralized" else ""
    if main.verdict == "by construction":
        return f"{subject} {_handed(finding, main, thing)}."
    if main.verdict == "too few":
        return f"there were too few records to say what {subject} can find out ({proof})."
    if main.clear:
        return f"{subject} {_deed(finding, main, thing)}{like} ({proof})."
    return f"{subject} was not shown to do better than guessing{like} ({proof})."


def _of_many(finding: Finding, thing: str) -> str:
    """How many of the seats leak, which, and how much."""
    every = len(finding.seats) + finding.refused
    noun, main = seats(finding.threat, every), finding.main
    rest = f" {finding.refused} could not be attacked this way." if finding.refused else ""
    if main.verdict == "by construction":
        group = [seen for seen in finding.seats if seen.verdict == main.verdict] or finding.seats
        return f"{_some(group, every, noun)} {_handed(finding, main, thing, many=True)}.{rest}"
    if main.verdict == "too few":
        return f"for {every} {noun} there were too few records to say what they can find out."
    leaking = [seen for seen in finding.seats if seen.clear and seen.verdict != "too few"]
    worst = f"the worst: {_proof(finding, main)}"
    if not main.clear or not leaking:
        chance = (
            f", though {len(leaking)} of {len(finding.seats)} lie above it one by one, as some do by chance"
            if leaking
            else ""
        )
        return (
            f"none of {every} {noun} was shown to do better than guessing{chance} ({worst}).{rest}"
        )
    top = max(tier(gain(finding, main)), min(tier(gain(finding, seen)) for seen in leaking))
    group = [seen for seen in leaking if tier(gain(finding, seen)) <= top]
    lesser = [seen for seen in leaking if seen not in group]
    told = f"{_some(group, every, noun)} {_deed(finding, main, thing)} ({worst})."
    if lesser:
        most = max(lesser, key=lambda seen: gain(finding, seen))
        told += (
            f" {len(lesser)} more {_deed(finding, most, thing)} (at most {_proof(finding, most)})."
        )
    safe = len(finding.seats) - len(leaking)
    return told + (f" For {safe} more this was not shown." if safe else "") + rest


def _some(group: Sequence[Seen], every: int, noun: str) -> str:
    """``2 of 4 devices (device-0 and device-1)``."""
    count = f"{len(group)} of {every}" if len(group) < every else f"all {every}"
    return f"{count} {noun} ({listed([seen.seat for seen in group])})"


def _deed(finding: Finding, seen: Seen, thing: str) -> str:
    """What a seat can do."""
    match finding.goal:
        case "reconstruction":
            word = share(seen.value)
            return f"can pick out {word} private {thing}" + ("" if word == "nearly every" else "s")
        case "membership":
            often = [
                (0.95, "nearly always"),
                (0.7, "often"),
                (-math.inf, "more often than by guessing"),
            ]
            how = next(word for least, word in often if seen.value >= least)
            return f"can tell, {how}, whose record was trained on"
        case "recurrence":
            word = "nearly always" if seen.value >= 0.95 else "more often than by guessing"
            return f"can tell, {word}, the same private {thing} again in another epoch"
        case "label":
            word = share(seen.value)
            return f"can tell the label of {word} private {thing}" + (
                "" if word == "nearly every" else "s"
            )
        case "inversion":
            return "can draw recognisable pictures of what the model learned"
    return f"can find out more than by guessing ({finding.goal or 'unnamed goal'})"


def _proof(finding: Finding, seen: Seen) -> str:
    """The numbers that say so."""
    value, blind, few = seen.value, seen.blind, None
    if not math.isfinite(value):
        return "no number"
    if finding.goal == "inversion":
        few = seen.n
    elif finding.goal not in ("reconstruction", "label", *OF_PAIRS):
        return f"{finding.metric.replace('_', ' ')} {value:.3g}; guessing: {blind:.3g}"
    guess = of_hundred(blind, few) if math.isfinite(blind) else "not known"
    match finding.goal:
        case "membership" | "recurrence":
            return f"right for {of_hundred(value)} pairs; guessing: {guess}"
        case "inversion":
            return f"{of_hundred(value, few)} classes recognised; guessing: {guess}"
    return f"{of_hundred(value, seen.n)}; guessing: {guess}"


def _handed(finding: Finding, seen: Seen, thing: str, many: bool = False) -> str:
    """What the protocol itself hands over."""
    if finding.goal == "membership":
        return f"{'see' if many else 'sees'} by construction whose records are trained on"
    word = "every" if seen.value >= 0.995 else share(seen.value)
    plural = "" if word.endswith("every") else "s"
    verb = "are" if many else "is"
    what = (
        f"the label of {word} private {thing}"
        if finding.goal == "label"
        else f"{word} private {thing}"
    )
    return f"{verb} handed {what}{plural}: the protocol sends them, nothing is inferred"
