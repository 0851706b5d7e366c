"""Turning stored tensors into parameters and back, by written layouts (see `families`).

A layout is a list of dims in the order of the array's memory; parentheses merge dims into one axis; `+` after a dim or
after a group marks where several parameters are joined.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_TOKEN = re.compile(r"(?:\((?P<group>[^)]*)\)|(?P<dim>\w+))(?P<joined>\+?)")


@dataclass(frozen=True, slots=True)
class Layout:
    """A stored tensor's layout: merged groups of dim letters, and where parameters are joined."""

    groups: tuple[tuple[str, ...], ...]
    joined_group: int = -1  # parameters are joined along this merged axis
    joined_dim: str = ""  # or along this dim, before dims are merged

    @property
    def letters(self) -> tuple[str, ...]:
        """All dims in order."""
        return tuple(letter for group in self.groups for letter in group)


def parse_layout(text: str) -> Layout:
    """Read `"(n h+) d"`.

    >>> parse_layout("(n h)+ d")
    Layout(groups=(('n', 'h'), ('d',)), joined_group=0, joined_dim='')
    """
    groups: list[tuple[str, ...]] = []
    joined_group, joined_dim = -1, ""
    for token in _TOKEN.finditer(text):
        letters = (token["group"] or token["dim"]).split()
        if token["joined"]:
            joined_group = len(groups)
        joined_dim = next((letter[:-1] for letter in letters if letter.endswith("+")), joined_dim)
        groups.append(tuple(letter.rstrip("+") for letter in letters))
    return Layout(tuple(groups), joined_group, joined_dim)


def _sizes(own: str, shape: Sequence[int]) -> dict[str, int]:
    """Size of each dim of one of our parameters; a literal 1 is a dim that our array does not have."""
    letters = own.split()
    return dict(zip((x for x in letters if x != "1"), shape, strict=True)) | {"1": 1}


def _own_order(layout: Layout, own: str) -> list[int]:
    """Permutation from our order of dims to the stored order."""
    letters = own.split()
    return [letters.index(letter) for letter in layout.letters]


def _merged(layout: Layout, sizes: dict[str, int]) -> tuple[int, ...]:
    return tuple(math.prod(sizes[letter] for letter in group) for group in layout.groups)


def store(layout: Layout, owns: Sequence[str], arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Our parameters -> the stored tensor."""
    pieces = []
    for own, array in zip(owns, arrays, strict=True):
        sizes = _sizes(own, array.shape)
        piece = array.reshape([sizes[x] for x in own.split()]).transpose(_own_order(layout, own))
        pieces.append(piece if layout.joined_dim else piece.reshape(_merged(layout, sizes)))
    if not layout.joined_dim:
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=layout.joined_group)
    joined = np.concatenate(pieces, axis=layout.letters.index(layout.joined_dim))
    sizes = dict(zip(layout.letters, joined.shape, strict=True))
    return joined.reshape(_merged(layout, sizes))


def load(layout: Layout, owns: Sequence[str], shapes: Sequence[Sequence[int]], stored: np.ndarray) -> list[np.ndarray]:
    """The stored tensor -> our parameters of the given shapes; ValueError where it does not fit."""
    sizes = [_sizes(own, shape) for own, shape in zip(owns, shapes, strict=True)]
    if layout.joined_dim:
        axis = layout.letters.index(layout.joined_dim)
        whole = sizes[0] | {layout.joined_dim: sum(size[layout.joined_dim] for size in sizes)}
        _require_shape(stored, _merged(layout, whole))
        stored = stored.reshape([whole[letter] for letter in layout.letters])
        lengths = [size[layout.joined_dim] for size in sizes]
    else:
        axis = max(layout.joined_group, 0)
        lengths = [_merged(layout, size)[axis] for size in sizes]
        expected = list(_merged(layout, sizes[0]))
        expected[axis] = sum(lengths)
        _require_shape(stored, tuple(expected))
    pieces = np.split(stored, np.cumsum(lengths)[:-1], axis=axis)
    return [
        piece.reshape([size[letter] for letter in layout.letters])
        .transpose(np.argsort(_own_order(layout, own)))
        .reshape(shape)
        for piece, size, own, shape in zip(pieces, sizes, owns, shapes, strict=True)
    ]


def _require_shape(stored: np.ndarray, expected: tuple[int, ...]) -> None:
    if stored.shape != expected:
        raise ValueError(f"its shape is {stored.shape}, the model's is {expected}")
