"""Griffe extension: docstrings as the reference page needs them.

Doctests become code blocks (as plain Markdown, `>>>` would be a quotation), and the fields of a dataclass, which are
explained by comments beside them, become the table of attributes of its class.
"""

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


class ReferenceDocstrings(griffe.Extension):
    """Rewrites docstrings after they are read and before they are rendered."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Put every doctest into a fence."""
        if obj.docstring is not None:
            obj.docstring.value = _DOCTEST.sub(lambda test: f"```pycon\n{test[0]}\n```", obj.docstring.value)

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """List a dataclass's fields."""
        fields = [member for member in cls.attributes.values() if member.annotation is not None]
        if cls.docstring is None or "dataclass" not in cls.labels | {
            d.callable_path.split(".")[-1] for d in cls.decorators
        }:
            return
        rows = [f"    {field.name}: {_meaning(field)}" for field in fields if "property" not in field.labels]
        if rows:
            cls.docstring.value += "\n\nAttributes:\n" + "\n".join(rows)


def _meaning(field: griffe.Attribute) -> str:
    """The comment beside a field and its default."""
    lines = field.filepath.read_text(encoding="utf-8").splitlines()
    comment = lines[(field.endlineno or field.lineno or 1) - 1].partition("  # ")[2]
    default = f"Default `{field.value}`." if field.value is not None else "Required."
    return f"{comment}{'. ' if comment else ''}{default}"
