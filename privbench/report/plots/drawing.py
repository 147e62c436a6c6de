"""A figure with what belongs to it: title, caption, and the numbers that it shows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from matplotlib.figure import Figure

from privbench.report.plots.svg import inline


@dataclass(frozen=True, eq=False)
class Drawing:
    """One figure.

    Args:
        name: stable stem of its files, unique within a study.
        title: what it shows, in short plain words.
        caption: a sentence or two for readers who are no specialists.
        figure: made without pyplot.
        numbers: exactly what is drawn, for the CSV beside it.
        private: it shows private records.
    """

    name: str
    title: str
    caption: str
    figure: Figure
    numbers: pd.DataFrame
    private: bool = False

    def svg(self) -> str:
        """The figure for a page: colours are ``var(--ink)``, ``--muted``, ``--grid``, ``--paper``.

        Parts that a page may talk about carry ``data-gid`` (``device-3``, ``link-3-7``,
        ``block-0``) and the same behind ``<name>-`` as ``id``.
        """
        return self._inline

    @cached_property
    def _inline(self) -> str:
        return inline(self.figure, self.name, self.title)
