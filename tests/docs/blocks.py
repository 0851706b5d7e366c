"""Fenced code blocks of the README and of the documentation."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
_FENCE = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL
)
# What compiles, trains or times: minutes, not seconds.
_SLOW_VERBS = ("compile", "twin", "train", "check", "measure", "bench", "sweep")


# What needs a terminal; tests/cli/test_explore.py gives it one.
_INTERACTIVE_VERBS = ("explore",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block; `title` is the file that it is the text of, where it has one."""

    page: str
    line: int
    language: str
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One `jaxscale` line of a block, without the program's name."""

    page: str
    line: int
    arguments: tuple[str, ...]

    @property
    def slow(self) -> bool:
        """Whether it takes minutes."""
        looks_only = "--help" in self.arguments or "--dry-run" in self.arguments
        # A store is filled by a slow command of the same page.
        waits = "--check" in self.arguments or "--store" in self.arguments
        return not looks_only and (self.arguments[0] in _SLOW_VERBS or waits)

    @property
    def interactive(self) -> bool:
        """Whether it needs a terminal."""
        return self.arguments[0] in _INTERACTIVE_VERBS

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {' '.join(self.arguments[:2])}"


def blocks() -> list[Block]:
    """Every fenced block with a language."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for fence in _FENCE.finditer(text):
            found.append(
                Block(
                    page=str(page.relative_to(ROOT)),
                    line=text.count("\n", 0, fence.start()) + 1,
                    language=fence["language"],
                    title=fence["title"] or "",
                    text=fence["text"],
                )
            )
    return found


def commands() -> list[Command]:
    """Every line of an `sh` block that starts with jaxscale; a backslash joins lines."""
    return [
        Command(page=block.page, line=block.line + number + 1, arguments=tuple(words[1:]))
        for block in blocks()
        if block.language == "sh"
        for number, line in enumerate(block.text.replace("\\\n", " ").splitlines())
        if (words := shlex.split(line, comments=True))[:1] == ["jaxscale"]
    ]


def files() -> dict[str, str]:
    """Files that the pages show, by name."""
    return {block.title: block.text for block in blocks() if block.title}
