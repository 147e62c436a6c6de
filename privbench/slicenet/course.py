"""What happens in a crowd that fails, step by step: drawn before training, whatever it trains on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from privbench.contract import Handover, child_rng
from privbench.slicenet.buddies import Buddies
from privbench.slicenet.faults import Faults
from privbench.slicenet.problem import Problem, Slicing

RELEASER = "releaser"
NEVER = -1  # when a device that left for good is back


@dataclass(frozen=True)
class Turn:
    """One step.

    Args:
        away: devices that are not there.
        slow: devices that straggle.
        hosted: does every slice have a host? Else the step is skipped.
        handovers: slices that change hands at its beginning, in order.
    """

    away: frozenset[int]
    slow: frozenset[int]
    hosted: bool
    handovers: tuple[Handover, ...]


@dataclass(frozen=True)
class Course:
    """All steps.

    Args:
        turns: one a step.
        ending: slices that nobody hands in, since their last host left for good: from whom the
            releaser gets an older copy, or that it goes back to their initial weights (``restart``).
    """

    turns: tuple[Turn, ...]
    ending: tuple[Handover, ...]

    @property
    def handovers(self) -> tuple[Handover, ...]:
        """Those of all steps, in order."""
        return tuple(each for turn in self.turns for each in turn.handovers)


def course_of(faults: Faults, problem: Problem, slicing: Slicing, steps: int) -> Course:
    """Draw what happens.

    Slices of one home change hands together, and have ``faults.buddies`` stand-ins. In each step they
    are hosted by their home if it is there, else by a stand-in: from the copy that it holds, from
    their initial weights where nobody holds one. Where none is there the step is skipped, and nothing
    changes hands. Whoever left for good is followed by a stand-in as home, and another stand-in is
    chosen; where all are gone too, anybody who can afford the slices.

    Args:
        problem: who can afford what.
        slicing: who hosts what while all are there.
        steps: of the training run.

    Raises:
        UsageError: the schedule names a device or step that there is not.
    """
    faults.check_crowd(len(problem.devices), steps)
    state = _State(faults, problem, slicing)
    turns = tuple(state.turn(step) for step in range(steps))
    return Course(turns, tuple(state.ending(steps)))


class _State:
    """Who is there, who hosts what, and who holds which older copy."""

    def __init__(self, faults: Faults, problem: Problem, slicing: Slicing) -> None:
        self._faults, self._names = faults, problem.parties
        groups: Mapping[int, tuple[int, ...]] = _groups(slicing)
        self._back: dict[int, int] = {}  # of those away, by device: when they are there again
        self._home = {home: home for home in groups}
        self._host = dict(self._home)  # in the last step that was hosted
        self._buddies = Buddies(problem, groups) if faults.on_drop == "take_over" else None
        self._stand_ins: dict[int, list[int]] = {home: [] for home in groups}
        self._gone: set[int] = set()  # of those away, who left for good
        self._held: dict[int, dict[int, int]] = {home: {} for home in groups}
        for home in sorted(groups, key=lambda each: (-len(groups[each]), each)):
            self._appoint(home)
        self._events = defaultdict(list)
        for step, device, what in faults.schedule:
            self._events[step].append((device, what))
        self._rng = torch.Generator().manual_seed(faults.seed)

    def turn(self, step: int) -> Turn:
        """The next step."""
        slow = self._come_and_go(step)
        gone = {device for device, back in self._back.items() if back == NEVER}
        if gone != self._gone:
            self._gone = gone
            for home in self._home:
                self._follow(home)
        moving = {
            home: self._host_of(home)
            for home, now in self._home.items()
            if now in self._back or self._host[home] != now
        }
        hosted = None not in moving.values()
        moves = list(self._moves(step, moving)) if hosted else []
        moves += self._copies(step)
        away = frozenset(self._back)
        return Turn(away, slow.difference(away), hosted, tuple(moves))

    def ending(self, steps: int) -> Iterator[Handover]:
        """Slices whose last host left for good, after the last step."""
        for home, host in self._host.items():
            if host not in self._gone:
                continue
            held = {d: s for d, s in self._held[home].items() if d not in self._gone}
            keeper = max(held, key=lambda device: (held[device], -device), default=None)
            sender = RELEASER if keeper is None else self._names[keeper]
            reason = "restart" if keeper is None else "take_over"
            yield Handover(steps, self._names[home], sender, RELEASER, reason)

    def _come_and_go(self, step: int) -> frozenset[int]:
        """Who returns, who leaves and (returned) who is slow, by plan and by draw."""
        for device in [device for device, back in self._back.items() if back == step]:
            del self._back[device]
        draws = torch.rand(2, len(self._names), generator=child_rng(self._rng, "devices", step))
        leaving = (draws[0] < self._faults.drop_rate).nonzero().flatten().tolist()
        slow = (draws[1] < self._faults.straggle_rate).nonzero().flatten().tolist()
        planned = self._events[step]
        for device in sorted({*leaving, *(d for d, what in planned if what == "drop")}):
            if device not in self._back:
                self._back[device] = self._returns(device, step, device in leaving)
        return frozenset(slow) | {device for device, what in planned if what == "straggle"}

    def _returns(self, device: int, step: int, drawn: bool) -> int:
        """When a device that leaves now is back."""
        after = self._faults.return_after
        planned = [
            each
            for each, other, what in self._faults.schedule
            if other == device and what == "return" and each > step
        ]
        return min([*planned, *([step + after] if drawn and after else [])], default=NEVER)

    def _follow(self, home: int) -> None:
        """Slices whose home or stand-ins left for good get others."""
        there = [each for each in self._stand_ins[home] if each not in self._gone]
        if self._buddies is None:
            return
        if self._home[home] in self._gone:
            copied = [each for each in there if each in self._held[home]]
            fresh = None if there else self._buddies.choose(home, self._gone)
            successor = next(iter([*copied, *there]), fresh)
            if successor is None:
                return
            self._home[home] = successor
            there = [each for each in there if each != successor]
        elif len(there) == len(self._stand_ins[home]):
            return
        self._stand_ins[home] = there
        self._appoint(home)

    def _appoint(self, home: int) -> None:
        """Choose stand-ins, as many as were asked for and can afford it."""
        mine = self._stand_ins[home]
        while self._buddies is not None and len(mine) < self._faults.buddies:
            found = self._buddies.choose(home, {*self._gone, *mine, self._home[home]})
            if found is None:
                return
            mine.append(found)

    def _host_of(self, home: int) -> int | None:
        """Its home; else whoever hosts it already, or has the latest copy, or any stand-in.

        One that holds no copy waits for those who do and may return.
        """
        last, held = self._host[home], self._held[home]
        host: int | None = self._home[home]
        if host in self._back:
            there = [each for each in self._stand_ins[home] if each not in self._back]
            host = max(there, key=lambda d: (d == last, held.get(d, -1)), default=None)
        if host is None or host == last or host in held or last not in self._back:
            return host
        return None if set(held).difference(self._gone) else host

    def _moves(self, step: int, hosts: Mapping[int, int | None]) -> Iterator[Handover]:
        for home, host in hosts.items():
            last = self._host[home]
            if host is None or host == last:
                continue
            names = (step, self._names[home])
            if last not in self._back:
                yield Handover(*names, self._names[last], self._names[host], "return")
            elif host in self._held[home]:
                yield Handover(*names, self._names[last], self._names[host], "take_over")
            else:
                yield Handover(*names, RELEASER, self._names[host], "restart")
            self._held[home][last] = step
            self._host[home] = host

    def _copies(self, step: int) -> Iterator[Handover]:
        every = self._faults.copy_every
        if not every or not step or step % every:
            return
        for home, stand_ins in self._stand_ins.items():
            host = self._host[home]
            if host != self._home[home] or host in self._back:
                continue
            for each in stand_ins:
                if each not in self._back:
                    self._held[home][each] = step
                    names = self._names[home], self._names[host], self._names[each]
                    yield Handover(step, *names, "copy")


def _groups(slicing: Slicing) -> dict[int, tuple[int, ...]]:
    """Vertices of each device that hosts any."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for vertex, host in enumerate(slicing.hosts):
        found[host].append(vertex)
    return {host: tuple(found[host]) for host in sorted(found)}
