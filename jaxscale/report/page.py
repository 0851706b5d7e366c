"""One self-contained HTML page: a headline in words, then sections of prose, cards, figures and tables.

Every report of jaxscale is a `Page`, so that they share one look; `render` writes it as a document, `render_fragment`
its first section for a notebook. Plotly (as the plotly package bundles it) travels inside the document, compressed; the
page needs no network. A figure says what its numbers are (predicted, compiled or measured), how sure they are, and
carries them as a table for those who cannot see it.
"""

import base64
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from jaxscale import __version__
from jaxscale.types.results import TierOfTruth
from jaxscale.units import format_si

MAX_BYTES = 5_000_000
COMPRESSION = 9
LARGEST_PLAIN = 1e5  # a larger number is written with a prefix
FILTERED_FROM = 8  # rows; a shorter table needs no box to filter it


@dataclass(frozen=True, slots=True, kw_only=True)
class Prose:
    """Sentences as paragraphs, or as the items of a list."""

    sentences: Sequence[str]
    kind: str = "prose"  # or "list"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One figure, large, with what it is and a note."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cards:
    """Figures side by side."""

    cards: Sequence[Card]
    kind: str = "cards"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a check said."""

    passed: bool | None  # None: it could not be checked
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """Checks, passed or struck out."""

    verdicts: Sequence[Verdict]
    kind: str = "verdicts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What kind of numbers a figure shows, and how sure they are in a sentence."""

    tiers: tuple[TierOfTruth, ...]
    sure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A table's column; a numeric one is sorted by value."""

    name: str
    numeric: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What a cell shows, and what it sorts by."""

    text: str
    value: float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A table's row; `layout` is the id of the explored layout it stands for."""

    cells: Sequence[Cell]
    layout: int | None = None
    struck: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table; a sortable one is sorted by a click on a heading and, where it is long, filtered by words."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    id: str = ""
    sortable: bool = False
    kind: str = "table"

    @property
    def filterable(self) -> bool:
        """Whether it gets a box to filter its rows."""
        return self.sortable and len(self.rows) > FILTERED_FROM


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A Plotly figure as plain data; `caption` also tells those who cannot see it what it shows."""

    id: str
    caption: str
    evidence: Evidence
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    numbers: Table | None = None  # what is drawn; None where a table beside it says it already
    height_px: int = 360
    kind: str = "figure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A drawing that does not move, as SVG text made by jaxscale itself."""

    svg: str
    caption: str
    evidence: Evidence
    kind: str = "drawing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A field of the explored layouts, and the values it takes."""

    field: str
    name: str
    values: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A number of the explored layouts that the plot can show them by."""

    field: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explorer:
    """Every kept layout as a point of step time and one of `measures`; the layouts are in the page's data."""

    filters: Sequence[Filter]
    measures: Sequence[Measure]
    caption: str
    evidence: Evidence
    kind: str = "explorer"


Block = Prose | Cards | Verdicts | Figure | Drawing | Explorer | Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and what stands under it."""

    anchor: str
    heading: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A report. `data` is what the page's script works on, beside the figures."""

    title: str
    eyebrow: str
    headline: str
    lead: Sequence[str]
    sections: Sequence[Section]
    data: Mapping[str, Any] = field(default_factory=dict)
    version: str = __version__


def number_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[float | str | Cell]]) -> Table:
    """A sortable table: numbers with four digits, right-aligned; words and whole cells as they are.

    >>> table = number_table("Bars.", ("name", "GiB"), [("a", 1.23456)])
    >>> table.columns[1].numeric, table.rows[0].cells[1].text
    (True, '1.235')
    """
    numeric = [any(_is_number(row[i]) for row in rows) for i in range(len(header))]
    columns = [Column(name=name, numeric=is_number) for name, is_number in zip(header, numeric, strict=True)]
    return Table(
        caption=caption, columns=columns, sortable=True,
        rows=[Row(cells=[_cell(value, number) for value, number in zip(row, numeric, strict=True)]) for row in rows],
    )  # fmt: skip


def _is_number(value: float | str | Cell) -> bool:
    return isinstance(value.value if isinstance(value, Cell) else value, int | float)


def _cell(value: float | str | Cell, numeric: bool) -> Cell:
    """A cell; what is missing in a numeric column sorts last."""
    if isinstance(value, Cell):
        return value
    if isinstance(value, str):
        return Cell(text=value, value=math.inf if numeric else value)
    if not math.isfinite(value):
        return Cell(text="", value=math.inf)
    if isinstance(value, int):
        return Cell(text=f"{value:,}", value=value)
    return Cell(text=format_si(value) if abs(value) >= LARGEST_PLAIN else f"{value:.4g}", value=value)


def render(page: Page) -> str:
    """Write a page as one HTML document."""
    figures = page_figures(page)
    data = {**page.data, "figures": {f.id: {"data": f.data, "layout": f.layout} for f in figures}}
    return _template("report.html.j2").render(
        page=page, css=_asset("report.css"), js=_asset("report.js"), data=script_json(data), plotly=_plotly_gzip()
    )


def render_fragment(page: Page) -> str:
    """Write a page's headline and first section as HTML without script, for a notebook's output."""
    return _template("fragment.html.j2").render(page=page, css=_asset("fragment.css"))


def page_figures(page: Page) -> list[Figure]:
    """Every figure of a page, in order."""
    return [block for section in page.sections for block in section.blocks if isinstance(block, Figure)]


def _template(name: str) -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("jaxscale.report", "assets"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(name)


def _asset(name: str) -> str:
    return files("jaxscale.report").joinpath("assets", name).read_text(encoding="utf-8")


def _plotly_gzip() -> str:
    """Plotly's bundle as gzip in base64: 4.8 MB become 1.9 MB; browsers unpack it themselves."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), COMPRESSION, mtime=0)).decode("ascii")


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element: no `</`, no NaN.

    >>> script_json({"a": "</script>", "b": float("nan")})
    '{"a":"\\\\u003c/script>","b":null}'
    """
    return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
