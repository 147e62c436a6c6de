"""An audit of every step of DP-SGD by gradient canaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import Attack, MembershipGuess, View
from privbench.errors import NotApplicable


@dataclass(frozen=True, kw_only=True)
class GradientCanary(Attack):
    """Was a canary in this step? What the step released along its direction says so.

    M. Nasr, J. Hayes, T. Steinke, B. Balle, F. Tramèr, M. Jagielski, N. Carlini, A. Terzis: Tight
    Auditing of Differentially Private Machine Learning, USENIX Security 2023,
    https://arxiv.org/abs/2302.07956 (the white-box auditor with a canary of its own in each step).

    We differ: a step carries many canaries at right angles, and each enters it with a private record
    that is drawn by the code under audit, so that one training gives thousands of observations and the
    sampling is audited, too.

    Example::

        privbench regime=dpsgd_audited threat=iterates attack=gradient_canary
    """

    goal: ClassVar[str] = "audit"
    needs: ClassVar[tuple[str, ...]] = ("every_step",)
    source: ClassVar[str] = (
        "M. Nasr, J. Hayes, T. Steinke, B. Balle, F. Tramèr, M. Jagielski, N. Carlini, A. Terzis: "
        "Tight Auditing of Differentially Private Machine Learning, 2023, "
        "https://arxiv.org/abs/2302.07956"
    )

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """What was released along each canary that was drawn, step by step, in units of the clip.

        Returns:
            a score for each observation; half a clip is the threshold, fixed beforehand.

        Raises:
            NotApplicable: no step carried canaries.
        """
        if "canaries_seen" not in view.notes:
            raise NotApplicable(
                "gradient_canary reads canaries in the steps of DP-SGD, and this training carried none; "
                "type regime=dpsgd_audited"
            )
        drawn = view.notes["canaries_drawn"].bool()
        return MembershipGuess(view.notes["canaries_seen"][drawn], threshold=0.5)
