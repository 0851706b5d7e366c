"""MkDocs hook: formulas become MathML while the site is built, so that a page needs no script and no network."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

# What `pymdownx.arithmatex` writes in its generic mode.
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(page_html: str, **_: Any) -> str:
    """Replace every formula of a page."""
    return _FORMULA.sub(_mathml, page_html)


def _mathml(formula: re.Match[str]) -> str:
    text = html.unescape(formula[3]).strip()
    if formula[2] == "(":
        return convert(text)
    return f'<div class="formula">{convert(text, display="block")}</div>'
