"""The page as text: whole, small, escaped, and with the same numbers as table.csv."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import zlib
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from privbench.errors import StorageError
from privbench.report import chosen
from privbench.report import page as room
from privbench.report.crowd import CrowdFacts
from privbench.report.folder import gather, lines_of, table_of, write_table
from privbench.report.page import render, write_page
from privbench.report.page import table as table_room
from privbench.report.page.made import making
from privbench.report.page.png import Album, data_uri
from privbench.report.page.table import sent
from privbench.report.printed import headlines
from privbench.report.report import Report
from privbench.scoring.score import Pictures


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page without figures, which take most of its time."""
    monkeypatch.setattr(room, "drawings", lambda *args, **settings: ())


def _data(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def _frame(data: Any) -> pd.DataFrame:
    columns = {n: [c["of"][i] for i in c["at"]] for n, c in data["columns"].items()}
    return pd.DataFrame(columns)


def test_numbers_of_the_page_are_those_of_the_table(
    study: tuple[Report, ...], page_file: Path, tmp_path: Path
) -> None:
    write_table(study, tmp_path / "table.csv")
    read = pd.read_csv(tmp_path / "table.csv")
    shown = _frame(_data(page_file.read_text()))
    keys = ["row", "seat", "metric"]
    shown = shown.sort_values(keys, ignore_index=True)
    read = read.sort_values(keys, ignore_index=True)
    for name in ("value", "low", "high", "blind", "n", "accuracy", "bytes_per_sample"):
        assert shown[name].astype(float).equals(read[name].astype(float))
    assert list(shown["verdict"]) == list(read["verdict"])


def test_rows_marked_head_are_those_of_the_printed_table(study: tuple[Report, ...]) -> None:
    shown = _frame({"columns": sent(lines_of(study)).columns})
    wanted = headlines(table_of(study))
    assert sorted(shown[shown["head"]]["row"]) == sorted(wanted["row"])


@pytest.mark.usefixtures("bare")
def test_too_many_rows_become_headlines_and_say_so(
    study: tuple[Report, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = table_of(study)
    monkeypatch.setattr(table_room, "MOST", len(frame) - 1)
    kept = sent(lines_of(study))
    assert kept.shown == len(headlines(frame)) < len(frame)
    assert f"{len(frame) - kept.shown} more are in table.csv" in render(study, "x")
    monkeypatch.setattr(table_room, "MOST", 3)
    assert sent(lines_of(study)).shown == 3


def test_the_policy_lets_only_our_script_run(page_file: Path) -> None:
    page = page_file.read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page


class Reader(HTMLParser):
    """Ids of a page, and what it points at."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = {name: value or "" for name, value in attrs}
        self.ids += [facts["id"]] if "id" in facts else []
        self.links += [facts[name] for name in ("src", "href") if name in facts]


def test_nothing_is_fetched_and_every_id_is_single(page_file: Path) -> None:
    reader = Reader(page_file.read_text())
    assert len(set(reader.ids)) == len(reader.ids)
    assert all(link.startswith(("#", "data:")) for link in reader.links)
    assert {link[1:] for link in reader.links if link.startswith("#")} <= set(reader.ids)


def test_no_name_breaks_out(study: tuple[Report, ...]) -> None:
    evil = "</script><script>alert(1)</script><!-- {{ 7*7 }} \u2028"
    names = replace(study[3].names, model=evil, attack=evil, row=evil)
    report = replace(study[3], names=names, run=replace(study[3].run, config=evil, command=evil))
    page = render([report], evil, problems=[evil])
    assert "<script>alert" not in page
    assert "<!--" not in page
    assert page.count("</script>") == 2
    assert _frame(_data(page))["model"].unique().tolist() == [evil]


def test_images_stay_out_unless_they_are_wanted(study: tuple[Report, ...], page_file: Path) -> None:
    private = _data(page_file.read_text())["images"]
    page = render(study, "small", images=False)
    assert _data(page)["images"] == []
    assert private
    assert not any(image in page for image in private)
    assert "Originals beside" not in page
    assert "Images were left out" in page


def test_odd_runs_make_a_readable_page(study: tuple[Report, ...]) -> None:
    nothing = replace(study[3], scores=tuple(
        replace(s, value=math.nan, low=math.nan, high=math.inf, blind=math.nan) for s in study[3].scores
    ))  # fmt: skip
    data = _data(render([nothing, study[5]], "odd"))
    frame = _frame(data)
    assert set(frame["value"].dropna()) == {"nan"}
    assert set(frame["high"].dropna()) == {"inf"}
    long = replace(study[3].names, model="m" * 5000, attack="Ω" * 300, row="r" * 900)
    assert "m" * 5000 in render([replace(study[3], names=long)], "long")
    assert "There is no run to tell of" in render([], "empty")


def test_pictures_of_odd_shapes_are_left_out(study: tuple[Report, ...]) -> None:
    five = np.zeros((2, 5, 4, 4), np.uint8)
    flat = np.zeros((2, 7), np.uint8)
    pictures = tuple(Pictures(f"device-{i}", a, a, a) for i, a in enumerate((five, flat)))
    data = _data(render([replace(study[3], pictures=pictures)], "odd"))
    assert data["images"] == []


def test_a_thousand_seats_fit(study: tuple[Report, ...]) -> None:
    score, seat = study[3].scores[0], study[3].seats[0]
    seats = [f"device-{i}" for i in range(1000)]
    report = replace(
        study[3],
        scores=tuple(replace(score, seat=name) for name in seats),
        seats=tuple(replace(seat, seat=name) for name in seats),
        crowd=None, pictures=(),
    )  # fmt: skip
    page = render([report], "many")
    assert "1000 of 1002 devices (device-0 to device-999)" in page
    assert len(page) < 1e6


@pytest.mark.usefixtures("bare")
def test_problems_and_reasons_are_told(study: tuple[Report, ...]) -> None:
    page = render(study, "small", problems=["'x/report.json' is no whole report"])
    assert "&#39;x/report.json&#39; is no whole report" in page
    assert "it needs prefix weights, which this seat does not have" in page
    assert "it broke" in page


def test_figures_that_fail_leave_the_table(
    study: tuple[Report, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("no such shape")

    monkeypatch.setattr(room, "drawings", fail)
    page = render(study, "small")
    assert "no figure could be drawn (ValueError: no such shape)" in page
    assert len(_frame(_data(page))) == len(table_of(study))


def test_of_many_runs_some_are_read_whole_and_the_page_says_which(
    study: tuple[Report, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(12):
        report = replace(study[i % 4], run=replace(study[i % 4].run, seed=i, fingerprint=f"{i}"))
        report.save(tmp_path / f"{i}")
    (tmp_path / "3" / "pictures.safetensors").write_bytes(b"cut")
    (tmp_path / "5" / "report.json").write_text("{")
    monkeypatch.setattr(chosen, "DRAWN", 4)
    found = gather(tmp_path)
    page = render(found.reports, "many", problems=found.damaged)
    assert "those of 4 of 11 runs" in page
    assert len(_data(page)["maps"]) == 1
    assert "2 problems" in page


@pytest.mark.usefixtures("bare")
def test_the_page_is_written_whole_or_not_at_all(
    study: tuple[Report, ...], page_file: Path, tmp_path: Path
) -> None:
    assert page_file.stat().st_size < 3e6
    assert write_page(study, tmp_path / "report.html", "x").stat().st_size > 0
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="expected a writable folder"):
        write_page((), tmp_path / "file" / "report.html", "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "report.html"]


def test_a_png_is_what_browsers_read() -> None:
    image = np.arange(18, dtype=np.uint8).reshape(3, 2, 3)
    raw = base64.b64decode(data_uri(image).partition(",")[2])
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    start = raw.index(b"IDAT")
    size = int.from_bytes(raw[start - 4 : start], "big")
    rows = zlib.decompress(raw[start + 4 : start + 4 + size])
    assert rows == b"".join(b"\0" + np.moveaxis(image, 0, -1)[y].tobytes() for y in range(2))
    album = Album()
    assert [album.add(image), album.add(image), album.add(image[:1])] == [0, 0, 1]
    pytest.importorskip("PIL.Image").open(io.BytesIO(raw)).load()


@pytest.mark.parametrize("labels", ["tail", "logits", "shared", ""])
def test_the_page_says_what_becomes_of_labels(study: tuple[Report, ...], labels: str) -> None:
    host = next(report for report in study if report.crowd)
    crowd = replace(host.crowd, labels=labels)
    read = CrowdFacts.read(asdict(crowd))
    assert read == crowd
    (made,) = making([replace(host, crowd=read)], lines_of([host])).runs
    told = dict(made.facts).get("labels", "")
    words = {"tail": "last hidden", "logits": "tells each label", "shared": ": device-3", "": ""}
    assert words[labels] in told and bool(told) == bool(labels)
