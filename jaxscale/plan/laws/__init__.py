"""Scaling laws as data and functions: `LAWS` by name, and one module of bare formulas for each kind.

A new law is one `Law` entry in the module of its kind.
"""

from jaxscale.plan.law import MARK_MEANING, VERIFIED, Law, Mark, Point, Quantity, find_law
from jaxscale.plan.laws import batch, compression, data, dense, dense_laws, hyper, kaplan, moe

LAWS: dict[str, Law] = {
    law.name: law for module in (dense_laws, kaplan, data, moe, hyper, batch, compression) for law in module.LAWS
}


def laws_for(quantity: Quantity, *, second_hand: bool = False) -> list[Law]:
    """Laws of a quantity that may give advice; those with second-hand constants only on request."""
    return [
        law for law in LAWS.values() if quantity in law.quantities and law.in_panel and (law.verified or second_hand)
    ]


def law_named(name: str) -> Law:
    """Look a law up by name."""
    return find_law(LAWS, name)


__all__ = [
    "LAWS",
    "MARK_MEANING",
    "VERIFIED",
    "Law",
    "Mark",
    "Point",
    "Quantity",
    "batch",
    "compression",
    "data",
    "dense",
    "hyper",
    "kaplan",
    "law_named",
    "laws_for",
    "moe",
]
