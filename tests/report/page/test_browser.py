"""The page, driven as a reader would."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from privbench.report.folder import table_of
from privbench.report.page import write_page
from privbench.report.printed import headlines
from privbench.report.report import Report

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

ROWS = "table.rows tr.row"


def _find(page: Any, words: str, count: int) -> None:
    """Type words and wait until so many rows are left: the page answers in its next frame."""
    from playwright.sync_api import expect

    page.locator("#find").fill(words)
    expect(page.locator(ROWS)).to_have_count(count)  # asks again until it is so


def _column(page: Any, name: str) -> list[str]:
    return [cell.strip() for cell in page.locator(f"{ROWS} td.{name}").all_inner_texts()]


def test_the_table_shows_the_headlines_to_the_last_digit(
    opened: Any, study: tuple[Report, ...]
) -> None:
    page = opened()
    frame = headlines(table_of(study))
    wanted = sorted(
        f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" if pd.notna(row.value) else "–"
        for row in frame.itertuples()
    )
    assert sorted(text.splitlines()[0] for text in _column(page, "value")) == wanted
    assert sorted(_column(page, "verdict")) == sorted(frame["verdict"])


def test_details_hold_the_exact_numbers(opened: Any, study: tuple[Report, ...]) -> None:
    page = opened()
    _find(page, "median host", 1)
    button = page.locator(f"{ROWS} button")
    button.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    told = page.locator("tr.detail dd").all_inner_texts()
    score = next(s for s in study[3].scores if s.seat == "median")
    for number in (score.value, score.low, score.high, score.blind):
        assert any(_is(text, number) for text in told)
    assert "c" * 16 in told
    page.locator(f"{ROWS} td.value").click()
    assert page.locator("tr.detail").count() == 0


def _is(text: str, number: float) -> bool:
    try:
        return float(text) == number
    except ValueError:
        return False


def test_sorting_keeps_to_the_seat_columns(opened: Any) -> None:
    page = opened()
    head = page.locator("th", has_text="Leakage")
    before = _column(page, "value")
    orders = []
    for sort in ("descending", "ascending", "none"):
        head.locator("button").press("Enter")
        assert head.get_attribute("aria-sort") == sort
        assert page.locator("tr.group b").all_inner_texts() == [
            "Infrastructure",
            "Peer",
            "Outsider",
            "Other rows",
        ]
        orders.append(_column(page, "value"))
    assert orders[2] == before
    outsiders = [text.split()[0] for text in orders[0] if "AUC" in text]
    assert outsiders == sorted(outsiders, reverse=True)
    assert [text.split()[0] for text in orders[1] if "AUC" in text] == outsiders[::-1]


def test_filters_narrow_and_say_how_many_are_left(opened: Any, study: tuple[Report, ...]) -> None:
    page = opened()
    page.locator("#filter-regime").select_option("dpsgd")
    assert page.locator(ROWS).count() == 1
    assert page.locator(".told").inner_text().startswith("1 of ")
    page.locator("#every").check()
    assert page.locator(ROWS).count() == 2
    page.locator("#filter-verdict").select_option("too few")
    assert _column(page, "verdict") == ["too few"]
    page.locator("#filter-regime").select_option("")
    page.locator("#filter-verdict").select_option("")
    assert page.locator(ROWS).count() == len(table_of(study))
    _find(page, "nothing is called so", 0)
    assert page.locator(".told").inner_text().startswith("0 of ")


def test_pointing_at_a_device_tells_what_it_sees(opened: Any) -> None:
    page = opened()
    panel = page.locator("#panel")
    assert "device-0" in panel.inner_text()  # the one that sees most, to begin with
    page.locator("#maps [data-gid='device-2']").first.hover()
    told = panel.inner_text()
    assert "device-2" in told
    assert "6.2 % of the private records re-identified" in told
    assert "4 units of second" in told
    assert "3.75 MFLOP of 4.00 MFLOP (93.8 %)" in told
    assert panel.locator("img").count() == 12
    page.locator("#maps [data-gid='block-1']").hover()
    assert "device-1" in panel.inner_text()
    assert panel.get_attribute("aria-live") == "polite"


def test_the_map_is_walked_by_keyboard(opened: Any) -> None:
    page = opened()
    page.locator("#maps [data-gid='device-3'][tabindex]").focus()
    assert "device-3" in page.locator("#panel").inner_text()
    page.locator("#maps [data-gid='link-0-1'][tabindex]").press("Enter")
    assert "device-0–device-1" in page.locator("#panel").inner_text()
    label = page.locator("#maps [data-gid='device-3'][tabindex]").get_attribute("aria-label")
    assert label == "device-3: not shown to leak, 0.2 %"


def test_the_theme_switches_and_is_remembered(opened: Any) -> None:
    page = opened()
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.locator("#theme").press("Enter")
    dark = page.evaluate(paper)
    assert dark != light
    page.reload()
    assert page.evaluate(paper) == dark
    assert page.locator("#theme").inner_text() == "Light"
    page.locator("#theme").click()
    assert page.evaluate(paper) == light


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_keeps_anyone_from_reading(opened: Any, theme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened(theme, width)
    page.locator(f"{ROWS} button").first.click()
    page.locator("details summary").first.click()
    found = Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    broken = "[...document.images].filter((i) => !i.complete || !i.naturalWidth).length"
    assert page.evaluate(broken) == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_figures_are_saved_as_they_are_shown(opened: Any, theme: str) -> None:
    page = opened(theme, accept_downloads=True)
    figure = page.locator("figure.drawing[data-name='roc']")
    saved = {}
    for kind in ("svg", "png", "csv"):
        with page.expect_download() as waiting:
            figure.locator(f"[data-save='{kind}']").click()
        assert waiting.value.suggested_filename == f"roc.{kind}"
        saved[kind] = Path(waiting.value.path()).read_bytes()
    ink = {"light": "#1b1f24", "dark": "#e6e8eb"}[theme]
    assert ink in saved["svg"].decode()
    assert "var(" not in saved["svg"].decode()
    assert saved["png"].startswith(b"\x89PNG")
    box = figure.locator("svg").get_attribute("viewBox").split()
    assert int.from_bytes(saved["png"][16:20], "big") == round(2 * float(box[2]))
    assert not pd.read_csv(io.BytesIO(saved["csv"])).empty


def test_without_javascript_the_answer_and_the_figures_remain(opened: Any) -> None:
    page = opened(java_script_enabled=False)
    assert page.locator("#answers .main").count() == 4
    assert page.locator("figure svg").count() == page.locator("figure").count() > 3
    assert "table.csv" in page.locator("noscript").inner_text()


def test_names_are_text_wherever_they_appear(
    opened: Any, study: tuple[Report, ...], tmp_path: Path
) -> None:
    evil = '<img src=x onerror="window.hit=1"></script><script>window.hit=1</script>{{ 7*7 }}'
    reports = []
    for report in study:
        fields = ("study", "row", "data", "model", "defense", "attack", "variant")
        names = replace(report.names, **dict.fromkeys(fields, evil))
        run = replace(report.run, command=evil, config=evil, notices=(evil,), versions={evil: evil})
        scores = tuple(replace(score, note=evil, blind_name=evil) for score in report.scores)
        reports.append(replace(report, names=names, run=run, scores=scores, reason=evil))
    page = opened(file=write_page(reports, tmp_path / "evil.html", evil, problems=[evil]))
    for button in page.locator(f"{ROWS} button").all():
        button.click()
    page.locator("#maps [data-gid='device-2']").first.hover()
    page.wait_for_timeout(100)
    assert page.evaluate("window.hit") is None
    assert page.locator("img[src=x]").count() == 0
    assert evil in page.locator(f"{ROWS} td.attack").first.inner_text()
    assert evil in page.title()


def test_thousands_of_rows_filter_at_once(
    opened: Any, tmp_path: Path, study: tuple[Report, ...]
) -> None:
    many = [
        replace(
            study[1],
            names=replace(study[1].names, row=f"row-{i}"),
            run=replace(study[1].run, seed=i),
        )
        for i in range(6000)
    ]
    page = opened(file=write_page(many, tmp_path / "many.html", "many"))
    assert page.locator(ROWS).count() == 200
    page.locator("#more-rows").click()
    assert page.locator(ROWS).count() == 400
    script = """(word) => new Promise((done) => {
        const find = document.getElementById('find'); const start = performance.now();
        find.value = word; find.dispatchEvent(new Event('input'));
        requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
    })"""
    took = [page.evaluate(script, word) for word in ("row-1", "row-59", "lira row-599", "")]
    assert page.locator(".told").inner_text() == "6000 of 12000 rows, the first 200 shown"
    assert np.median(took) < 500, json.dumps(took)  # milliseconds; a shared machine is slow
