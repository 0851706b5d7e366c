"""Token sources: a row of tokens for every (step, sequence), so that any process can make just its own rows.

Nothing is drawn in sequence: what step 1000 sees does not depend on whether the run was stopped before it, nor on how
many processes read.
"""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import NamedSharding

from jaxscale.errors import SpecError
from jaxscale.runtime.program.batch import NO_TARGET, Batch
from jaxscale.types import Workload

_FEISTEL_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence, int32 [T] each."""

    tokens: np.ndarray
    targets: np.ndarray
    segments: np.ndarray | None = None
    positions: np.ndarray | None = None


class TokenSource(Protocol):
    """Anything that can make row `row` of the global batch of step `step`."""

    def row(self, step: int, row: int) -> Row:
        """The tokens of one sequence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticTokens:
    """Uniformly random tokens: the compute of real ones, and nothing to learn but their range."""

    seq_len: int
    vocab_size: int
    seed: int = 0

    def row(self, step: int, row: int) -> Row:
        """Tokens that follow from (seed, step, row) alone."""
        draw = np.random.default_rng((self.seed, step, row))
        tokens = draw.integers(0, self.vocab_size, self.seq_len + 1, dtype=np.int32)
        return Row(tokens[:-1], tokens[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFile:
    """A tokenised text, one long array of token ids in a `.npy` file, read through a memory map.

    The text is cut into windows of `seq_len` tokens, shuffled anew every epoch. Where `end_of_document` (a token id) is
    0 or more, documents within a window do not see each other: each gets its own segment and positions from 0, and the
    last token of a document has no target.
    """

    path: Path
    seq_len: int
    vocab_size: int
    global_batch_size: int
    end_of_document: int = -1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_windows < 1:
            raise SpecError(
                f"token file {self.path}: {len(_open_tokens(self.path))} tokens are less than one window of "
                f"seq_len={self.seq_len} and its last target"
            )

    @property
    def num_windows(self) -> int:
        """Whole windows of the text; each also reads one token more, its last target."""
        return (len(_open_tokens(self.path)) - 1) // self.seq_len

    def row(self, step: int, row: int) -> Row:
        """The window that this row of this step reads."""
        number = step * self.global_batch_size + row
        epoch, place = divmod(number, self.num_windows)
        start = shuffled(place, self.num_windows, f"{self.seed}/{epoch}") * self.seq_len
        tokens = self._read(start)
        if self.end_of_document < 0:
            return Row(tokens[:-1], tokens[1:])
        return packed_row(tokens, self.end_of_document)

    def _read(self, start: int) -> np.ndarray:
        """A window from token `start` on and the token after it, int32 [T + 1]."""
        stored = _open_tokens(self.path)[start : start + self.seq_len + 1]
        low, high = int(stored.min()), int(stored.max())
        if low < 0 or high >= self.vocab_size:
            raise SpecError(
                f"token file {self.path}: token id {low if low < 0 else high} after place {start} is not one of the "
                f"model's vocab_size={self.vocab_size}; was the text made with another tokeniser?"
            )
        return stored.astype(np.int32)


def packed_row(tokens: np.ndarray, end_of_document: int) -> Row:
    """Segments, positions and targets of a window [T + 1] of documents that each end in `end_of_document`.

    >>> packed_row(np.array([5, 0, 7, 8, 0, 9]), 0).positions.tolist()
    [0, 1, 0, 1, 2]
    """
    inputs, following = tokens[:-1], tokens[1:]
    is_end = inputs == end_of_document
    segments = np.concatenate([[0], np.cumsum(is_end)[:-1]])
    index = np.arange(len(inputs))
    starts = np.maximum.accumulate(np.where(np.concatenate([[True], is_end[:-1]]), index, 0))
    return Row(
        tokens=inputs.astype(np.int32),
        targets=np.where(is_end, NO_TARGET, following).astype(np.int32),
        segments=segments.astype(np.int32),
        positions=(index - starts).astype(np.int32),
    )


@functools.lru_cache(maxsize=8)
def _open_tokens(path: Path) -> np.ndarray:
    try:
        tokens = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise SpecError(f"token file {path}: not a .npy array of token ids ({error})") from error
    if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise SpecError(f"token file {path}: need one array of integers, got {tokens.dtype} of shape {tokens.shape}")
    return tokens


def shuffled(place: int, size: int, key: str) -> int:
    """Where `place` goes in a random order of `size` things, without making the others' places.

    A Feistel network over the next power of four, walked until it is inside (Black and Rogaway, "Ciphers with
    arbitrary finite domains", CT-RSA 2002, sections 3 and 4): a text of 10^8 windows takes no memory and no time.

    >>> sorted(shuffled(place, 10, "seed") for place in range(10)) == list(range(10))
    True
    """
    half_bits = max((size - 1).bit_length() + 1, 2) // 2
    mask = (1 << half_bits) - 1
    while True:
        left, right = place >> half_bits, place & mask
        for round_ in range(_FEISTEL_ROUNDS):
            drawn = hashlib.blake2b(f"{key}/{round_}/{right}".encode(), digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(drawn, "little") & mask)
        place = left << half_bits | right
        if place < size:
            return place


def load_batch(source: TokenSource, step: int, workload: Workload, sharding: NamedSharding) -> Batch:
    """The global batch of a step as sharded arrays; this process makes only the rows that its devices hold."""
    shape = (workload.global_batch_size, workload.seq_len)
    make = functools.lru_cache(maxsize=None)(lambda row: source.row(step, row))

    def array(field: str) -> jax.Array:
        def rows(index: Any) -> np.ndarray:
            return np.stack([getattr(make(row), field) for row in range(*index[0].indices(shape[0]))])

        return jax.make_array_from_callback(shape, sharding, rows)

    packed = make(_first_row(sharding, shape)).segments is not None
    extra = {name: array(name) for name in ("segments", "positions")} if packed else {}
    return Batch(tokens=array("tokens"), targets=array("targets"), **extra)


def _first_row(sharding: NamedSharding, shape: tuple[int, int]) -> int:
    """A row that this process holds anyway."""
    index = next(iter(sharding.addressable_devices_indices_map(shape).values()))
    return index[0].indices(shape[0])[0]
