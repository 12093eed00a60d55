"""Texts in, groups of copies and near-copies out, by their vectors. Serves `copies`; it needs no torch.

Needs `faiss-cpu`, of the copies extra, to search the vectors. Legend: N texts, C channels of a vector.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezebert.files.cores import check_threads
from squeezebert.files.errors import DependencyError, OptionError
from squeezebert.runtime.normalising import normalize
from squeezebert.runtime.ranking import VectorStore
from squeezebert.runtime.tokens import check_several

Vectors = NDArray[np.float32]
Places = NDArray[np.int64]

# From this cosine on two texts count as copies where nobody says otherwise; docs/copies.md has what it finds
DEFAULT_THRESHOLD = 0.9
# Vectors that are searched at a time: with fewer the search is slow, and more need more memory where all are alike
_BLOCK = 1024
# Texts that are read between two words about progress, and between two times that the vectors are kept
_STEP, _KEEP_EVERY = 256, 10_240


@dataclass(frozen=True, slots=True)
class Member:
    """A text in a group."""

    row: int
    """its place among the texts"""
    similarity: float
    """cosine with the group's centre"""
    exact: bool
    """whether it is the centre itself but for case, white space and forms of characters"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A text and its copies."""

    centre: int
    """place of the text that all others are alike to"""
    members: tuple[Member, ...]
    """all its texts, the centre among them, in the order of the texts"""

    @property
    def exact(self) -> bool:
        """Whether all are the same text."""
        return all(member.exact for member in self.members)


@dataclass(frozen=True, slots=True)
class Copies:
    """What was found among texts."""

    clusters: tuple[Cluster, ...]
    """the largest first"""
    texts: int
    """how many there were"""
    empty: int
    """of them without a character, which are copies of nothing"""
    distinct: int
    """the different ones of the others, exact copies counted once"""
    left_over: tuple[int, ...]
    """texts that are alike to a member of a group, but to no group's centre: in no group"""
    cut: int
    """distinct texts that were longer than the encoder reads, of which the beginning was compared"""


def normal_form(text: str) -> str:
    """Return what exact copies have in common: NFKC, no difference of case, white space as single blanks.

    It takes linear time, so that of a run of combining marks the first 30 count.
    """
    folded = normalize("NFKC", normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def find_copies(
    texts: Sequence[str],
    store: VectorStore,
    threshold: float = DEFAULT_THRESHOLD,
    threads: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Copies:
    """Group texts that are copies: the same but for their `normal_form`, or with a cosine of `threshold` or more.

    Of exact copies one is read by the encoder; how groups are made is said at `star_clusters`. `progress` is told the
    stage ("read" or "search"), what is done and of how many. The store's file is written now and then, if it has one.
    Raises `OptionError` for a threshold that is no cosine and for what is no text, `TextError` for a str alone,
    `DependencyError` without faiss.
    """
    check_several(texts)
    if not -1 < threshold <= 1:
        raise OptionError(f"threshold = {threshold}: expected a cosine above -1, to 1")
    check_threads(threads)
    import_faiss()
    tell = progress or (lambda stage, done, of: None)
    forms: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise OptionError(f"item {row}: expected a str, not {type(text).__name__}")
        forms.setdefault(normal_form(text), []).append(row)
    empty = len(forms.pop("", ()))
    rows = list(forms.values())
    first = [texts[own[0]] for own in rows]
    centres, similarities, left_over = star_clusters(
        _read(first, store, tell), threshold, threads, lambda done, of: tell("search", done, of)
    )
    grouped: dict[int, list[int]] = {}
    for place, centre in enumerate(centres.tolist()):
        grouped.setdefault(centre, []).append(place)
    clusters = []
    for centre, places in grouped.items():
        if len(places) == 1 and len(rows[centre]) == 1:
            continue
        members = [Member(row, float(similarities[place]), place == centre) for place in places for row in rows[place]]
        clusters.append(Cluster(rows[centre][0], tuple(sorted(members, key=lambda member: member.row))))
    clusters.sort(key=lambda cluster: (-len(cluster.members), cluster.members[0].row))
    cut = store.encoder.tokenizer.count_cut(first)
    left = tuple(sorted(row for place in left_over.tolist() for row in rows[place]))
    return Copies(tuple(clusters), len(texts), empty, len(rows), left, cut)


def star_clusters(
    vectors: Vectors,
    threshold: float,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Places, Vectors, Places]:
    """Group vectors of length 1, (N, C), around centres: star clustering (Aslam, Pelekhov and Rus 2004).

    The vector with the most others within `threshold` becomes a centre, then the next that is not within it of a
    centre, and so on; each other joins its nearest centre. So a group is no chain: all its members are alike to one
    text, and no two centres are alike. The search is exact. Memory beyond the vectors is bounded, however many pairs
    there are. Returns each one's centre (N,), which for a vector by itself is itself, the cosine with it (N,), and the
    places of those that are left over: alike to a member of a group, but to no centre. Raises `DependencyError`.
    """
    faiss = import_faiss()
    tell = progress or (lambda done, of: None)
    count, channels = vectors.shape
    centres, similarities = np.arange(count), np.ones(count, np.float32)
    if not count:
        return centres, similarities, centres
    with _faiss_threads(faiss, threads):
        alike = _count_alike(faiss, vectors, threshold, tell)
        # Most alike first, then in the order of the texts; those without a like have no part
        order = np.argsort(-alike, kind="stable")[: np.count_nonzero(alike)]
        index, chosen = faiss.IndexFlatIP(channels), np.zeros(0, np.int64)
        for start in range(0, len(order), _BLOCK):
            block = order[start : start + _BLOCK]
            if len(chosen):
                nearest, _ = index.search(vectors[block], 1)
                block = block[nearest[:, 0] < threshold]
            among = vectors[block] @ vectors[block].T
            new: list[int] = []
            for place in range(len(block)):
                if not (among[place, new] >= threshold).any():
                    new.append(place)
            index.add(vectors[block[new]])
            chosen = np.concatenate([chosen, block[new]])
        members = np.setdiff1d(order, chosen)
        for start in range(0, len(members), _BLOCK):
            block = members[start : start + _BLOCK]
            nearest, found = index.search(vectors[block], 1)
            centres[block], similarities[block] = chosen[found[:, 0]], np.minimum(nearest[:, 0], 1.0)
    return centres, similarities, np.setdiff1d(chosen, centres[members])


def _count_alike(faiss: Any, vectors: Vectors, threshold: float, tell: Callable[[int, int], None]) -> Places:
    """How many others each vector has within the threshold, (N,).

    A block is added and then looked for, so that of two blocks only one looks for the other.
    """
    count, channels = vectors.shape
    index, alike = faiss.IndexFlatIP(channels), np.zeros(count, np.int64)
    radius = np.nextafter(np.float32(threshold), np.float32(-2))  # what is found lies above it
    for start in range(0, count, _BLOCK):
        block = np.ascontiguousarray(vectors[start : start + _BLOCK])
        index.add(block)
        limits, _, found = index.range_search(block, float(radius))
        rows = np.repeat(np.arange(len(block)), np.diff(limits).astype(np.int64))
        others = found != rows + start  # each finds itself, or does not by a rounding
        alike[start : start + len(block)] += np.bincount(rows[others], minlength=len(block))
        earlier = found[found < start]
        alike += np.bincount(earlier, minlength=count)
        tell(start + len(block), count)
    return alike


def _read(texts: Sequence[str], store: VectorStore, tell: Callable[[str, int, int], None]) -> Vectors:
    """The vectors of texts; what was computed is kept when a run is interrupted."""
    parts, kept = [store.vectors([])], len(store)
    try:
        for start in range(0, len(texts), _STEP):
            parts.append(store.vectors(texts[start : start + _STEP]))
            tell("read", min(start + _STEP, len(texts)), len(texts))
            if store.path is not None and len(store) - kept >= _KEEP_EVERY:
                store.save()
                kept = len(store)
    finally:
        if store.path is not None and len(store) > kept:
            store.save()
    return np.concatenate(parts)


@contextmanager
def _faiss_threads(faiss: Any, threads: int | None) -> Iterator[None]:
    """Let faiss use `threads` cores meanwhile; None for all."""
    before = faiss.omp_get_max_threads()
    try:
        if threads is not None:
            faiss.omp_set_num_threads(threads)
        yield
    finally:
        faiss.omp_set_num_threads(before)


@functools.cache
def import_faiss() -> Any:
    """Import faiss when it is first needed. Raises `DependencyError` when it is not installed."""
    try:
        import faiss
    except ImportError as error:
        raise DependencyError(f"faiss cannot be imported ({error}): pip install 'squeezebert[copies]'") from error
    return faiss
