"""The screen of `jaxscale explore`: fields on the left, what they come to on the right. Textual draws it."""

from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Footer, Static

from jaxscale.cli.explorer import views
from jaxscale.cli.explorer.moves import FIELDS, Point, Problem, alternatives, point, stepped
from jaxscale.report.words import short_layout
from jaxscale.types import Layout


class Explorer(App[Layout]):
    """Change a layout with the arrow keys; returns the layout at which it was left."""

    CSS = f"""
    #heading, #said {{ height: auto; }}
    #said {{ color: $text-muted; }}
    #fields {{ width: {views.FIELD_COLUMNS}; }}
    #figures {{ width: 1fr; }}
    #choices {{ height: auto; max-height: 3; }}
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "select(-1)", "field", key_display="↑↓"),
        Binding("down,j", "select(1)", "field", show=False),
        Binding("left,h", "step(-1)", "value", key_display="←→"),
        Binding("right,l", "step(1)", "value", show=False),
        Binding("u", "undo", "undo"),
        Binding("r", "restart", "start over"),
        Binding("c", "copy", "copy"),
        Binding("q", "quit", "quit"),
    ]

    def __init__(self, problem: Problem, layout: Layout) -> None:
        super().__init__()
        self._problem = problem
        self._selected = 0
        self._past: list[Point] = [point(problem, layout)]

    @property
    def here(self) -> Point:
        """The point that is shown."""
        return self._past[-1]

    @property
    def field(self) -> str:
        """The field that the next left or right changes."""
        return FIELDS[self._selected]

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield Static(id="heading")
        with Horizontal():
            yield Static(id="fields")
            yield Static(id="figures")
        yield Static(id="choices")
        yield Static(id="said")
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Show the start."""
        self._show(short_layout(self.here.layout))

    def action_select(self, by: int) -> None:
        """Mark another field."""
        self._selected = (self._selected + by) % len(FIELDS)
        self._show(views.bound_line(self.here))

    def action_step(self, by: int) -> None:
        """Give the marked field its next or previous value."""
        layout = stepped(self._problem, self.here.layout, self.field, by)
        if layout == self.here.layout:
            self._show(f"{self.field} has no {'higher' if by > 0 else 'lower'} value here.")
            return
        self._past.append(point(self._problem, layout))
        self._show(views.bound_line(self.here))

    def action_undo(self) -> None:
        """Take the last change back."""
        if len(self._past) > 1:
            self._past.pop()
        self._show(views.bound_line(self.here))

    def action_restart(self) -> None:
        """Go back to the layout at the beginning."""
        self._past = self._past[:1]
        self._show(short_layout(self.here.layout))

    def action_copy(self) -> None:
        """Put the layout on the clipboard, where the terminal lets programs do that, and show it."""
        text = str(self.here.layout)
        self.copy_to_clipboard(text)
        self._show(text)

    async def action_quit(self) -> None:
        """Leave with the layout that is shown."""
        self.exit(self.here.layout)

    def _show(self, said: str) -> None:
        before = self._past[-2] if len(self._past) > 1 else self.here
        options = alternatives(self._problem, self.here.layout, self.field)
        shown = {
            "heading": views.heading(self._problem),
            "fields": views.field_lines(self.here.layout, self.field),
            "figures": views.figure_lines(self.here, before),
            "choices": views.choice_line(self.field, options, self.here.layout),
            "said": Text(said),
        }
        for name, text in shown.items():
            self.query_one(f"#{name}", Static).update(text)
