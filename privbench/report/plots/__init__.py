"""Figures of a study: leakage map, reconstructions, ROC, leakage against accuracy and bytes."""

from privbench.report.plots.against import against
from privbench.report.plots.drawing import Drawing
from privbench.report.plots.leakage_map import leakage_map
from privbench.report.plots.reconstructions import reconstructions
from privbench.report.plots.roc import roc
from privbench.report.plots.study import drawings, write_figures

__all__ = [
    "Drawing",
    "against",
    "drawings",
    "leakage_map",
    "reconstructions",
    "roc",
    "write_figures",
]
