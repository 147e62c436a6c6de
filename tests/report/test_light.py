"""Reading thousands of reports must not wait for torch."""

from __future__ import annotations

import subprocess
import sys


def test_reports_are_read_and_drawn_without_torch_and_hydra() -> None:
    code = (
        "import sys, privbench.report.folder, privbench.report.page, privbench.report.plots; "
        "print([m for m in ('torch', 'hydra', 'sklearn', 'wandb', 'scipy.stats') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
