"""Reading thousands of reports must not wait for torch."""

from __future__ import annotations

import os
import subprocess
import sys


def test_reports_are_read_and_drawn_without_torch_hydra_and_a_display() -> None:
    code = (
        "import sys, privbench.report.report\n"
        "assert 'matplotlib' not in sys.modules\n"
        "import privbench.report.folder, privbench.report.page, privbench.report.plots\n"
        "heavy = 'torch', 'hydra', 'sklearn', 'wandb', 'scipy.stats', 'matplotlib.pyplot'\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    blind = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=blind, timeout=60
    )
    assert done.stdout.strip() == "[]"
