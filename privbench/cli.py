"""The command line: what the words mean, what is printed, and the exit code.

0 = done; 1 = a run failed; 2 = the words or the configuration are wrong; 3 = a study has failed
rows; 130 = interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from privbench import __version__, plugins
from privbench.errors import PluginError, PrivbenchError, UsageError
from privbench.scaffold import scaffold

if TYPE_CHECKING:
    from rich.console import Console

FAILED, USAGE, FAILED_ROWS, INTERRUPTED = 1, 2, 3, 130

HELP = """\
privbench: how much leaks from the way a model is trained.

  privbench                                    every regime, every goal, one table (study=compare)
  privbench regime=… threat=… attack=… seed=…  one run
  privbench study=NAME [key=value …]           the rows of a study, with overrides
  privbench -m attack=a,b seed=1,2,3 …         a sweep, on any Hydra launcher
  privbench report FOLDER                      one table.csv over all runs below a folder
  privbench plugins list                       what is there, and who brings it
  privbench plugins check [DISTRIBUTION]       does it keep the contract
  privbench plugins new attack NAME            a scaffold in the current folder
  privbench --version | --help

keys: seed=0 victims=200 encrypted=false threads=1 device=auto|cpu|cuda seal=process|inline
      out=runs again=false debug=false; any setting of a choice: attack.NAME=…, regime.NAME=…
own:  model._target_=mynet.Net   data=arrays data.path=FILE.npz   regime=given regime.weights=FILE
"""


def console() -> None:
    """The entry point ``privbench``."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Do what the words say; returns the exit code.

    Args:
        argv: words after the program's name.
    """
    _own_folder_last()
    words = list(argv)
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            print("\x1b[?25h", end="", file=sys.stderr)  # a progress bar had hidden the cursor
        kept = [word for word in words if not word.lstrip("+").startswith("again=")]
        print(
            "\ninterrupted; finished rows are kept. To go on: " + " ".join(["privbench", *kept]),
            file=sys.stderr,
        )
        return INTERRUPTED
    except PrivbenchError as error:
        if "debug=true" in (word.lower() for word in words):
            traceback.print_exc()
        print(f"privbench: {error}", file=sys.stderr)
        return USAGE if isinstance(error, UsageError | PluginError) else FAILED


def _dispatch(words: list[str]) -> int:
    if words and words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words and words[0] == "--version":
        print(f"privbench {__version__}")
        return 0
    if words and words[0] == "report":
        return _report(words[1:])
    if words and words[0] == "plugins":
        return _plugins(words[1:])
    multirun = [word for word in words if word in ("-m", "--multirun")]
    flags = [word for word in words if word.startswith("-") and word not in multirun]
    if flags:
        raise UsageError(f"unknown flag '{flags[0]}'; flags are -m, --help, --version")
    return _runs([word for word in words if word not in multirun], bool(multirun))


def _runs(words: list[str], multirun: bool) -> int:
    """One run, a sweep or a study."""
    from privbench.compose.words import understood

    asked = understood(words, multirun)
    if asked.hint:
        print(asked.hint, flush=True)
    from privbench import experiment
    from privbench.compose.launch import many, one
    from privbench.report.printed import print_table
    from privbench.report.study import show

    screen = _screen()
    if asked.many:
        failed = show(many(asked), asked.study or "sweep", screen)
        return FAILED_ROWS if failed else 0
    plan = one(asked)
    report = experiment.run(plan)
    if report.status == "not_applicable":
        raise UsageError(f"not applicable: {report.reason}")
    print_table(report.table(), screen)
    return FAILED if report.status == "failed" else 0


def _report(words: list[str]) -> int:
    """``report FOLDER``."""
    if len(words) != 1:
        raise UsageError(
            f"expected: privbench report FOLDER, got {len(words)} words after 'report'"
        )
    from privbench.report.folder import gather, table_of, write_table
    from privbench.report.printed import print_table

    folder = Path(words[0])
    found = gather(folder)
    screen = _screen()
    print_table(table_of(found.reports), screen)
    write_table(found.reports, folder / "table.csv")
    for sentence in found.damaged:
        print(sentence, file=sys.stderr)
    screen.print(f"Every score: {folder / 'table.csv'}", soft_wrap=True, highlight=False)
    return FAILED if found.damaged else 0


def _plugins(words: list[str]) -> int:
    """``plugins list | check [NAME] | new attack NAME``."""
    if words == ["list"]:
        print(_inventory(with_provider=True))
        return 0
    if words[:1] == ["check"] and len(words) <= 2:
        from privbench.checks import report_on

        return FAILED if report_on(*words[1:]) else 0
    if words[:2] == ["new", "attack"] and len(words) == 3:
        print(scaffold(words[2], Path.cwd()))
        return 0
    raise UsageError(
        "expected: privbench plugins list, plugins check [NAME] or plugins new attack NAME; "
        f"got: plugins {' '.join(words)}"
    )


def _help() -> str:
    return f"{HELP}\n{_inventory(with_provider=False)}"


def _inventory(with_provider: bool) -> str:
    """Groups and choices with a line each; rows of studies are only counted."""
    lines = []
    for group, choices in plugins.listing().items():
        if not group:
            continue
        lines.append(f"{group}:")
        if group.startswith("row/"):
            lines.append(f"  {len(choices)} rows of study={group.removeprefix('row/')}")
            continue
        width = max(len(name) for name in choices)
        for name, choice in choices.items():
            provider = f"  [{choice.provider}]" if with_provider else ""
            lines.append(f"  {name:<{width}}{provider}  {choice.summary()}".rstrip())
    return "\n".join(lines)


def _screen() -> Console:
    """The terminal; a file or pipe gets lines long enough for the table."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 190)


def _own_folder_last() -> None:
    """The current folder is searched last, so that it can bring ``mynet.py`` and hide nothing."""
    here = os.getcwd()
    sys.path[:] = [entry for entry in sys.path if entry not in ("", here)] + [here]
