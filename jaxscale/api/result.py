"""What every answer of the Python API can do: become a table, a report, or a notebook's output."""

import abc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxscale.errors import SpecError
from jaxscale.types import AXES, Estimate

if TYPE_CHECKING:
    import pandas
    from plotly.graph_objects import Figure as PlotlyFigure

    from jaxscale.report.page import Page


class Result(abc.ABC):
    """An answer. Its fields hold the records it is made of; they are frozen, and their units stand in their names."""

    __slots__ = ()

    @abc.abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """The answer as flat rows of plain values, a unit in every name."""

    @abc.abstractmethod
    def page(self) -> "Page":
        """The answer laid out as a report."""

    @abc.abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The answer as the command line's `--json` prints it."""

    def to_pandas(self) -> "pandas.DataFrame":
        """The rows as a pandas table."""
        import pandas

        return pandas.DataFrame(self.rows())

    def write_report(self, path: str | Path) -> Path:
        """Write the one-file HTML report to `path`; it needs no network."""
        from jaxscale.report.page import render

        path = Path(path)
        try:
            path.write_text(render(self.page()), encoding="utf-8")
        except OSError as error:
            raise SpecError(f"{path}: cannot be written: {error.strerror}") from error
        return path

    def figures(self) -> dict[str, "PlotlyFigure"]:
        """The report's figures as Plotly figures, by name, to show or change in a notebook."""
        from plotly.graph_objects import Figure

        from jaxscale.report.figures.marks import standing_alone
        from jaxscale.report.page import page_figures

        made = page_figures(self.page())
        return {f.id: Figure(data=standing_alone(f.data), layout=standing_alone(f.layout)) for f in made}

    def _repr_html_(self) -> str:
        """What a notebook shows: the headline and the answer."""
        from jaxscale.report.page import render_fragment

        return render_fragment(self.page())


def estimate_row(e: Estimate) -> dict[str, Any]:
    """An estimate as one flat row: layout, figures, and every part of time, memory and communication."""
    low, high = e.interval_80_s or (None, None)
    return {
        "tier": e.tier,
        "layout": str(e.layout),
        **{axis: getattr(e.layout, axis) for axis in AXES},
        "microbatch_size": e.layout.microbatch_size,
        "remat": e.layout.remat,
        "step_time_s": e.step_time_s,
        "low_80_s": low,
        "high_80_s": high,
        "lower_s": e.lower_s,
        "upper_s": e.upper_s,
        "tokens_per_s_per_chip": e.tokens_per_s_per_chip,
        "mfu": e.mfu,
        "hfu": e.hfu,
        "dollars_per_billion_tokens": e.dollars_per_billion_tokens or None,
        "memory_bytes": e.memory_bytes,
        "memory_limit_bytes": e.memory_limit_bytes,
        "host_memory_bytes": e.host_memory_bytes,
        "fits": e.fits,
        **{f"time_{part}_s": seconds for part, seconds in e.time_parts_s.items()},
        **{f"memory_{part}_bytes".replace(" ", "_"): size for part, size in e.memory_parts_bytes.items()},
        **{f"sent_{axes}_bytes": size for axes, size in e.comm_bytes.items()},
    }
