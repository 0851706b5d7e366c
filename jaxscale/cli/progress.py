"""Progress on stderr: a bar with the time left while searching, a spinner with the latest news while checking."""

from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jaxscale.report.terminal import console
from jaxscale.search.search import Progress as OnProgress


class Bars:
    """A context in which progress is shown. Where stderr is not a terminal, news are plain lines."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = console(stderr=True, quiet=quiet)
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(),
            TimeElapsedColumn(), TimeRemainingColumn(), console=self._console, transient=True,
        )  # fmt: skip
        self._at_work: TaskID | None = None

    def __enter__(self) -> "Bars":
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def searching(self, cluster: str) -> OnProgress:
        """A bar for one cluster's search, as the function that moves it."""
        return self.counting(f"layouts on {cluster}")

    def counting(self, what: str) -> OnProgress:
        """A bar with the time left, as the function that moves it."""
        task = self._progress.add_task(what, total=None)

        def moved(done: int, total: int) -> None:
            self._progress.update(task, completed=done, total=total)

        return moved

    def said(self, news: str) -> None:
        """Print what is going on; from the first news on, a bar without an end shows that work goes on."""
        if self._at_work is None:
            self._at_work = self._progress.add_task("checks", total=None)
        self._console.print(news, style="dim", soft_wrap=True)
