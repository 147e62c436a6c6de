"""Numbers, seats and regimes in plain words, for readers who never heard of PSNR."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

REGIMES = {
    "centralized": "Centralized training",
    "fedavg": "Federated averaging",
    "dpsgd": "Centralized training with DP-SGD",
    "dpsgd_audited": "Centralized training with DP-SGD and gradient canaries",
    "fedavg_dpsgd": "Federated averaging with DP-SGD",
    "split": "Split learning",
    "slicenet": "SliceNet crowd",
    "given": "A model trained elsewhere",
}
SINGLE = {
    "trainer": "whoever trains the model",
    "server": "the server",
    "split_server": "the server",
    "coordinator": "the coordinator",
    "wire": "whoever taps the network",
    "released": "anyone who holds the released model",
    "api": "anyone who may query the model",
    "iterates": "whoever sees every step of training",
}
"""Who sits at a threat's only seat."""
MANY = {
    "host": ("device", "devices"),
    "owner": ("device that owns records", "devices that own records"),
    "client": ("participant", "participants"),
    "link": ("link", "links"),
}
"""What the seats of a threat are called, one and many."""
COLUMNS = {
    "infrastructure": "the party that the protocol gives most",
    "peer": "someone who takes part like everyone else",
    "network": "someone who listens on the way",
    "outsider": "someone who only meets the finished model, or whoever audits its training",
}
"""Seat columns, in the order in which they are shown."""
SHARES = ((0.9, "nearly every"), (0.5, "most"), (0.1, "some"), (0.0, "a few"))
"""Words for a share, from which value on."""


def share(value: float) -> str:
    """``nearly every``, ``most``, ``some`` or ``a few``."""
    return next(word for least, word in SHARES if value >= least or least == 0.0)


def of_hundred(value: float, n: int | None = None) -> str:
    """A share as a count: of ``n`` where those are few, else of 100."""
    if n and n < 100 and math.isclose(value * n, round(value * n), abs_tol=1e-6):
        return f"{round(value * n)} of {n}"
    return f"{100 * value:.3g} of 100"


def regime(name: str, defense: str = "") -> str:
    """What a regime is called in a heading."""
    shown = REGIMES.get(name, name or "An unnamed regime")
    return f"{shown} with {defense.replace('_', ' ').replace('+', ' and ')}" if defense else shown


def seats(threat: str, count: int) -> str:
    """``devices``: what so many seats of a threat are called."""
    one, many = MANY.get(threat, ("seat", "seats"))
    return one if count == 1 else many


def who(threat: str, seat: str) -> str:
    """Whoever sits at a single seat."""
    if threat == "hosts":
        return f"{seat} together"
    return SINGLE.get(threat) or seat or f"a seat of threat {threat}"


def listed(names: Sequence[str], most: int = 6) -> str:
    """``device-0 to device-7 and device-9``: neighbours joined, long lists cut."""
    spans: list[list[str]] = []
    for name in sorted(names, key=_natural):
        if spans and _follows(spans[-1][-1], name):
            spans[-1].append(name)
        else:
            spans.append([name])
    words = []
    for span in spans:
        words += [f"{span[0]} to {span[-1]}"] if len(span) > 2 else span
    if len(words) > most:
        words = [*words[:most], f"{len(words) - most} more"]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _follows(one: str, other: str) -> bool:
    """Whether two names count on: ``device-3`` and ``device-4``."""
    first, second = re.fullmatch(r"(.*?)(\d+)", one), re.fullmatch(r"(.*?)(\d+)", other)
    if not first or not second or first[1] != second[1]:
        return False
    return int(second[2]) == int(first[2]) + 1


def capital(sentence: str) -> str:
    """With a capital first letter."""
    return sentence[:1].upper() + sentence[1:]
