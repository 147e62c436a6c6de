"""The command line: what the words mean, what is printed, and the exit code.

0 = done; 1 = a run failed; 2 = the words or the configuration are wrong; 3 = a study has failed
rows; 130 = interrupted.
"""

from __future__ import annotations

import os
import shlex
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

    from privbench.compose.outlets import Outlets
    from privbench.report.report import Report

FAILED, USAGE, FAILED_ROWS, INTERRUPTED = 1, 2, 3, 130

HELP = """\
privbench: how much leaks from the way a model is trained.

  privbench                                    every regime, every goal, one table (study=compare)
  privbench regime=… threat=… attack=… seed=…  one run
  privbench study=NAME [key=value …]           the rows of a study, with overrides
  privbench study=NAME rows=040,05*            some of them, by the beginnings of their names
  privbench -m attack=a,b seed=1,2,3 …         a sweep, on any Hydra launcher
  privbench report FOLDER [figures=FOLDER]     report.html and table.csv over all runs below a folder;
                                               figures as PDF, PNG and CSV
  privbench plugins list                       what is there, and who brings it
  privbench plugins check [DISTRIBUTION]       does it keep the contract
  privbench plugins new attack NAME            a scaffold in the current folder
  privbench --version | --help

keys: seed=0 victims=200 encrypted=false threads=1 device=auto|cpu|cuda seal=process|inline
      out=runs again=false debug=false report.images=true sink.images=false
      and any setting of a choice: attack.NAME=…, regime.NAME=…, sink.NAME.KEY=…
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
            "\ninterrupted; finished rows are kept. To go on: " + shlex.join(["privbench", *kept]),
            file=sys.stderr,
        )
        return INTERRUPTED
    except PrivbenchError as error:
        if _debugged(words):
            traceback.print_exc()
            print(error.traceback, end="", file=sys.stderr)
        print(f"privbench: {error}", file=sys.stderr)
        return USAGE if isinstance(error, UsageError | PluginError) else FAILED
    except BrokenPipeError:  # whoever read what is printed, as head does, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # noqa: BLE001 - nobody should have to read a traceback unasked
        if _debugged(words):
            traceback.print_exc()
        print(
            f"privbench: {type(error).__name__}: {error}; that was not foreseen (debug=true shows "
            "where): please report it",
            file=sys.stderr,
        )
        return FAILED


def _debugged(words: Sequence[str]) -> bool:
    return "debug=true" in (word.lower() for word in words)


def _dispatch(words: list[str]) -> int:
    if words[:1] == ["help"] or {"-h", "--help"} & set(words):
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
    from privbench.compose.outlets import run_folder
    from privbench.contract import watching
    from privbench.report.bars import bars
    from privbench.report.printed import print_table, print_warnings
    from privbench.report.study import rows_of, show, study_folder

    screen = _screen()
    if asked.many:
        out, launch, outlets = many(asked)
        failed = show(out, launch, screen)
        reports, folder = rows_of(out, launch), study_folder(out, launch)
        _further(outlets, launch, reports, folder, screen)
        return FAILED_ROWS if failed else 0
    plan, outlets = one(asked)
    with bars() as tell, watching(tell):
        report = experiment.run(plan)
    if report.status == "not_applicable":
        raise UsageError(f"not applicable: {report.reason}")
    print_table(report.table(), screen)
    print_warnings((report,), screen)
    _further(outlets, "", (report,), run_folder(plan.out, report), screen)
    return FAILED if report.status == "failed" else 0


def _further(
    outlets: Outlets, study: str, reports: Sequence[Report], folder: Path, screen: Console
) -> None:
    """The page and the dashboards, once results are on disk and on the screen."""
    from privbench.compose.outlets import Shown, to_stderr
    from privbench.report.study import heading

    shown = Shown(reports, heading(study))
    page = shown.page(folder, outlets.images)
    screen.print(f"To look at: {page}", soft_wrap=True, highlight=False)
    outlets.mirror(shown, study, folder, to_stderr)


def _report(words: list[str]) -> int:
    """``report FOLDER [figures=OUT] [report.images=false]``."""
    folder, figures, images = _of_report(words)
    from privbench.report.chosen import read_whole
    from privbench.report.folder import gather, lines_of, table_of, write_table
    from privbench.report.page import write_page
    from privbench.report.plots import write_figures
    from privbench.report.printed import print_table

    found = gather(folder)
    screen = _screen()
    print_table(table_of(found.reports), screen)
    write_table(found.reports, folder / "table.csv")
    for sentence in found.damaged:
        print(sentence, file=sys.stderr)
    screen.print(f"Every score: {folder / 'table.csv'}", soft_wrap=True, highlight=False)
    page = folder / "report.html"
    write_page(found.reports, page, folder.name, images=images, problems=found.damaged)
    screen.print(f"To look at: {page}", soft_wrap=True, highlight=False)
    if figures is not None:
        whole = read_whole(found.reports).reports
        drawn = write_figures(whole, figures, images=images, lines=lines_of(found.reports))
        screen.print(f"Figures: {len(drawn)} files in {figures}", soft_wrap=True, highlight=False)
    return FAILED if found.damaged else 0


def _of_report(words: list[str]) -> tuple[Path, Path | None, bool]:
    """The folder, where figures go, and whether private records are shown."""
    settings = dict(word.partition("=")[::2] for word in words[1:])
    unknown = sorted(set(settings) - {"figures", "report.images"})
    images = settings.get("report.images", "true").lower()
    if not words or "=" in words[0] or unknown or images not in ("true", "false"):
        raise UsageError(
            "expected: privbench report FOLDER [figures=FOLDER] [report.images=true|false]; "
            f"got: report {' '.join(words)}"
        )
    figures = settings.get("figures")
    return Path(words[0]), Path(figures) if figures else None, images == "true"


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
