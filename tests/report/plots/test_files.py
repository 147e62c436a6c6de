"""Figures as files and as part of a page: whole, the same twice, alone, safe against names."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pandas as pd
import pytest

from privbench.errors import StorageError
from privbench.report.plots import Drawing, drawings, write_figures
from privbench.report.report import Names, Report

EVIL = "$\\frac{1}{2}$ <script>alert(1)</script> & \"'_^{x}\x00\n日本 \\ " + "long" * 40


@pytest.fixture(scope="module")
def study(host: Report, lira: Report) -> list[Report]:
    return [lira, host, replace(lira, status="failed", scores=(), reason="no")]


@pytest.fixture(scope="module")
def drawn(study: list[Report]) -> tuple[Drawing, ...]:
    return drawings(study)


@pytest.fixture(scope="module")
def written(study: list[Report], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return write_figures(study, tmp_path_factory.mktemp("figures") / "deep" / "out")


@pytest.fixture
def evil(host: Report, lira: Report) -> list[Report]:
    def named(report: Report) -> Report:
        known = {
            "regime": f"_{EVIL}",
            "attack": EVIL,
            "row": EVIL,
            "variant": "$",
            "defense": "<b>",
        }
        return replace(report, names=replace(report.names, **known))

    return [named(host), named(lira)]


def test_the_figures_of_a_study_in_the_pages_order(
    study: list[Report], drawn: tuple[Drawing, ...]
) -> None:
    assert [each.name for each in drawn] == [
        "leakage-map-080-host", "reconstructions-080-host", "roc", "leakage-accuracy", "leakage-bytes",
        "loads-080-host",
    ]  # fmt: skip
    assert not any(each.private for each in drawings(study, images=False))
    assert drawings([]) == ()
    assert drawings([Report(Names(), status="failed")]) == ()


@pytest.mark.slow
def test_no_kind_of_figure_runs_away(host: Report) -> None:
    made = drawings([host] * 20)
    names = [each.name for each in made]
    assert len(set(names)) == len(names)
    assert sum(name.startswith("leakage-map") for name in names) == 6
    assert sum(name.startswith("reconstructions") for name in names) == 12


def test_a_map_takes_links_and_coordinator_of_its_own_target(host: Report) -> None:
    def other(threat: str, seat: str, seed: int = 0) -> Report:
        names, run = replace(host.names, threat=threat), replace(host.run, seed=seed)
        score = replace(host.scores[0], seat=seat, value=0.5)
        return replace(host, names=names, run=run, scores=(score,), pictures=())

    link, boss = other("link", "device-0–device-1"), other("coordinator", "coordinator", seed=1)
    table = drawings([host, boss, link])[0].numbers.set_index("name")
    assert table.loc["device-0–device-1", "value"] == 0.5
    assert "coordinator" not in table.index


def test_an_svg_stands_in_a_page(drawn: tuple[Drawing, ...]) -> None:
    ids: list[str] = []
    for drawing in drawn:
        text = drawing.svg()
        root = ElementTree.fromstring(text)
        assert text.startswith("<svg ")
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert (root.get("width"), root.get("role")) == ("100%", "img")
        assert root.get("aria-label") == drawing.title
        assert "<style" not in text
        assert "<metadata" not in text
        for value in re.findall(r'href="([^"]*)"', text):
            assert value.startswith(("#", "data:image/png;base64,"))
        assert re.findall(r"https?://[^\"' ]+", text) == ["http://www.w3.org/2000/svg"]
        own = [value for element in root.iter() if (value := element.get("id"))]
        assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(own)
        ids += own
    assert len(set(ids)) == len(ids)


def test_an_svg_takes_the_pages_colours_and_keeps_its_text(drawn: tuple[Drawing, ...]) -> None:
    text = drawn[0].svg()
    for name in ("ink", "muted", "grid", "paper"):
        assert f"var(--{name}, #" in text
    assert not re.search(r"(?<!, )#(1b1f24|656d76|d5d9de|ffffff)", text)
    assert ">share of private records re-identified</text>" in text
    assert "DejaVu" not in text
    assert 'id="leakage-map-080-host-device-3"' in text
    assert 'data-gid="device-3"' in text


@pytest.mark.slow
def test_figures_are_the_same_twice(
    study: list[Report], written: tuple[Path, ...], tmp_path: Path
) -> None:
    for file in write_figures(study, tmp_path):
        assert file.read_bytes() == (written[0].parent / file.name).read_bytes()
    for one, other in zip(drawings(study), drawings(study), strict=True):
        text = one.svg()
        assert text == one.svg() == other.svg()


@pytest.mark.slow
def test_a_users_settings_change_nothing(study: list[Report]) -> None:
    wanted = [each.svg() for each in drawings(study)]
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "text.parse_math": True}):
        assert [each.svg() for each in drawings(study)] == wanted
        assert matplotlib.rcParams["font.size"] == 30


def test_files_are_whole(drawn: tuple[Drawing, ...], written: tuple[Path, ...]) -> None:
    folder = written[0].parent
    assert sorted(folder.iterdir()) == sorted(written)
    assert len(written) == 18
    for drawing in drawn:
        pdf = (folder / f"{drawing.name}.pdf").read_bytes()
        assert b"/FontFile2" in pdf
        assert b"/Type3" not in pdf
        assert b"CreationDate" not in pdf
        assert (folder / f"{drawing.name}.png").read_bytes().startswith(b"\x89PNG")
        table = pd.read_csv(folder / f"{drawing.name}.csv")
        assert len(table) == len(drawing.numbers)
        if "value" in table:
            assert table["value"].dropna().tolist() == drawing.numbers["value"].dropna().tolist()


def test_a_folder_that_cannot_be_written_is_told(study: list[Report], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="expected a writable folder"):
        write_figures(study, tmp_path / "file")


@pytest.mark.slow
def test_names_cannot_break_a_figure(evil: list[Report], tmp_path: Path) -> None:
    made = drawings(evil)
    assert len(made) == 6
    for drawing in made:
        text = drawing.svg()
        root = ElementTree.fromstring(text)
        assert "<script" not in text
        assert re.fullmatch(r"[a-z0-9_-]+", drawing.name)
        assert drawing.name.isascii()
        assert not any(element.tag.endswith("script") for element in root.iter())
    words = "".join(made[3].svg())
    assert "$\\frac{1}{2}$ &lt;script&gt;" in words
    for file in write_figures(evil[1:], tmp_path):
        assert file.stat().st_size > 100


def test_python_users_get_figures(host: Report, lira: Report) -> None:
    for figure in (host.leakage_map(), lira.roc(), host.reconstructions()):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        assert buffer.tell() > 1000


@pytest.mark.slow
def test_a_drawing_is_told_apart_by_itself(host: Report) -> None:
    one, other = (drawings([host])[0] for _ in range(2))
    assert isinstance(one, Drawing)
    assert one != other
