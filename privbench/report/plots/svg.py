"""A figure as part of a web page: its colours follow the page, its ids stay its own."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

from matplotlib.figure import Figure

from privbench.report.plots.style import GRID, INK, MUTED, PAPER, TYPE, house_style

SVG = "http://www.w3.org/2000/svg"
FINE = re.compile(r"-?\d+\.\d{3,}")
"""Numbers with more digits than a screen can show."""
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper"}


def inline(figure: Figure, prefix: str, label: str) -> str:
    """The figure as one ``<svg>`` element.

    Ids that artists gave themselves (``gid``) come back twice: as ``data-gid``, and as ``id`` behind
    ``prefix``, so that two figures on one page do not clash. ``label`` is read to those who cannot
    see it.
    """
    root = ElementTree.fromstring(_drawn(figure))
    own = _gids(figure)
    used = set(re.findall(r"#([\w.:-]+)", " ".join(_references(root))))
    for parent in list(root.iter()):
        for child in list(parent):
            if _bare(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _bare(element.tag)
        facts = {_bare(name): value for name, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update(_mended(facts, prefix, own, used))
    box = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib.update(
        {
            "xmlns": SVG,
            "viewBox": box,
            "width": "100%",
            "role": "img",
            "aria-label": label,
            "style": "stroke-linejoin: round; stroke-linecap: butt",
        }
    )
    return ElementTree.tostring(root, encoding="unicode")


def _gids(figure: Figure) -> set[str]:
    """Names that patches and texts gave themselves."""
    artists = [artist for axes in figure.axes for artist in (*axes.patches, *axes.texts)]
    return {gid for artist in artists if (gid := artist.get_gid())}


def _drawn(figure: Figure) -> bytes:
    """What matplotlib writes, without the day and the version."""
    buffer = io.BytesIO()
    none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with house_style():
        figure.savefig(buffer, format="svg", metadata=none)
    return buffer.getvalue()


def _bare(name: str) -> str:
    """A tag or attribute without its name space; ``href`` needs none in HTML."""
    return name.rpartition("}")[2]


def _references(root: ElementTree.Element) -> list[str]:
    """Every value that may point at an id."""
    values = (value for element in root.iter() for value in element.attrib.values())
    return [value for value in values if value.startswith("#") or "url(#" in value]


def _mended(facts: dict[str, str], prefix: str, own: set[str], used: set[str]) -> dict[str, str]:
    """Attributes with prefixed ids and the page's colours; ids that nothing needs are dropped."""
    mended = {}
    for name, value in facts.items():
        if name == "id":
            if value in own:
                mended["data-gid"] = value
            if value not in own | used:
                continue
            value = f"{prefix}-{value}"
        elif value.startswith("#") and name == "href":
            value = f"#{prefix}-{value[1:]}"
        elif "url(#" in value:
            value = value.replace("url(#", f"url(#{prefix}-")
        if name == "d":
            value = FINE.sub(lambda found: f"{float(found[0]):.2f}", " ".join(value.split()))
        mended[name] = _coloured(value) if name in ("style", "fill", "stroke") else value
    if "style" not in mended and ("fill" in mended or "stroke" in mended):
        paint = {name: mended.pop(name) for name in ("fill", "stroke") if name in mended}
        mended["style"] = "; ".join(f"{name}: {value}" for name, value in paint.items())
    return mended


def _coloured(value: str) -> str:
    """A style whose colours and type face are the page's, with ours to fall back on."""
    for colour, variable in VARIABLES.items():
        value = value.replace(colour, f"var({variable}, {colour})")
    return re.sub(rf"'{TYPE}'[^;]*", "var(--font, system-ui, sans-serif)", value)
