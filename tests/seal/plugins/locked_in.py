"""Attacks and fits for the tests of the seal: each does one thing that a plug-in may do, or try."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from privbench.contract import Attack, Fit, Fitted, Guess, Knowledge, MembershipGuess, View
from privbench.errors import NotApplicable


@dataclass(frozen=True, kw_only=True)
class Doing(Attack):
    """Does what ``what`` names, then guesses at random."""

    goal: ClassVar[str] = "membership"
    source: ClassVar[str] = "none"

    what: str = "guess"
    argument: str = ""

    def run(self, view: View, rng: torch.Generator) -> Guess:
        x = view.public.candidates.x
        guess = torch.rand(len(x), generator=rng).double() + (x.double() @ x[0].double()).tanh()
        facts = getattr(self, f"_{self.what}")(view)
        if facts is not None:
            guess = torch.tensor([float(fact) for fact in facts])
        return MembershipGuess(guess)

    def _guess(self, view: View) -> None:
        return None

    def _draw_globally(self, view: View) -> tuple[float, ...]:
        return torch.rand(()).item(), random.random(), np.random.rand()  # noqa: NPY002

    def _write_into_the_view(self, view: View) -> None:
        view.public.candidates.x.zero_()

    def _look_around(self, view: View) -> tuple[bool, ...]:
        x = view.public.candidates.x
        return (
            x.grad_fn is None and not x.requires_grad,
            bool(getattr(sys.modules.get("harness_state"), "secret", False)),
            "HARNESS_ONLY" in getattr(sys.modules["__main__"], "__dict__", {}),
            any(
                name.split(".")[1] not in ("contract", "errors", "seal", "wire")
                for name in sys.modules
                if name.startswith("privbench.")
            ),
            "pytest" in sys.modules,
        )

    def _pid(self, view: View) -> tuple[int, ...]:
        return os.getpid(), os.getppid(), torch.get_num_threads()

    def _print_and_read(self, view: View) -> tuple[bool]:
        print('{"done": 0}')
        os.write(1, b'{"done": 0}\n')
        os.system("echo '{\"done\": 0}'")
        return (os.read(0, 10) == b"",)

    def _be_killed(self, view: View) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _leave(self, view: View) -> None:
        os._exit(0)

    def _exit(self, view: View) -> None:
        sys.exit("enough")

    def _raise(self, view: View) -> None:
        raise ValueError("the words of the attack")

    def _not_applicable(self, view: View) -> None:
        raise NotApplicable("needs pairs")

    def _nan(self, view: View) -> tuple[float]:
        return (float("nan"),)

    def _ask(self, view: View) -> tuple[float, ...]:
        x = view.public.candidates.x
        return tuple(view.oracle(x[i : i + 1]).sum().item() for i in range(int(self.argument)))

    def _fork(self, view: View) -> tuple[int]:
        pid = os.fork()
        if not pid:
            os._exit(7)
        return (os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]),)

    def _leave_a_fork_behind(self, view: View) -> tuple[int]:
        reader, writer = os.pipe()
        if not os.fork():
            self._take_lock()
            os.write(writer, b"x")
            signal.pause()
        return (len(os.read(reader, 1)),)

    def _hang(self, view: View) -> None:
        self._take_lock()
        signal.pause()

    def _take_lock(self) -> None:
        held = os.open(self.argument + ".part", os.O_CREAT | os.O_RDWR)
        fcntl.flock(held, fcntl.LOCK_EX)
        os.rename(self.argument + ".part", self.argument)


@dataclass(frozen=True, kw_only=True)
class TooFew(Doing):
    """Forgets a view."""

    def run_all(self, views: Sequence[View], rng: torch.Generator) -> list[Guess]:
        return super().run_all(views, rng)[1:]


@dataclass(frozen=True, kw_only=True)
class Learns(Fit):
    """Remembers a mean and a random number."""

    def fit(self, knowledge: Knowledge, rng: torch.Generator) -> Fitted:
        x = knowledge.public.candidates.x
        return Fitted({"mean": x.mean(0), "draw": torch.rand(3, generator=rng)}, {"n": len(x)})
