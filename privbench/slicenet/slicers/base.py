"""What a slicer is. Adding one = one file with a subclass, and one yaml in ``conf/slicer``."""

from __future__ import annotations

from abc import ABC, abstractmethod

from privbench.slicenet.problem import Problem, Slicing


class Slicer(ABC):
    """Gives each vertex a host. Subclasses are frozen dataclasses with keyword-only fields."""

    @abstractmethod
    def slice(self, problem: Problem) -> Slicing:
        """A host for every vertex; the harness checks the budgets afterwards.

        Deterministic: equal problems give equal slicings.

        Raises:
            BudgetError: it finds none that keeps them.
        """
