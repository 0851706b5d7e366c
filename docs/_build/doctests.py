"""Griffe extension: doctests of docstrings become code blocks; as plain Markdown, `>>>` would be a quotation."""

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


class FencedDoctests(griffe.Extension):
    """Put every doctest of every docstring into a fence."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = _DOCTEST.sub(lambda test: f"```pycon\n{test[0]}\n```", obj.docstring.value)
