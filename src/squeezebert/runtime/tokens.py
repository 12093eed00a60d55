"""Text in, token ids as the model was trained on out; without transformers, and in bounded time for any text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from squeezebert.files.errors import FolderError, OptionError, SqueezeBertError

# Characters tokenised at first per token that fits; texts this short are tokenised whole
_CHARACTERS_A_TOKEN = 16
# A cut text must give this many tokens more than fit: what lies next to the cut is never used
_MARGIN = 32
_SPACE = re.compile("[ \n\t\r]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")

Text = str | tuple[str, str]
MASK = "[MASK]"


class TextError(SqueezeBertError, TypeError):
    """A text that is none: names its index and what was found."""


def check_several(texts: object) -> None:
    """Raise `TextError` for what holds no texts one after the other: a str alone, a mapping, a set, no iterable."""
    if isinstance(texts, str | Mapping | Set) or not isinstance(texts, Iterable):
        raise TextError(f"expected several texts, not {type(texts).__name__}")


@dataclass(frozen=True, slots=True)
class Tokens:
    """One tokenised text."""

    ids: list[int]
    """token ids, special ones included"""
    types: list[int]
    """token type of each id"""
    truncated: bool
    """whether text was cut off to fit"""


@dataclass(frozen=True)
class Layout:
    """The special tokens around one or two texts, as (ids, types), and the types of the texts themselves."""

    before: tuple[list[int], list[int]]
    """what stands before the first text"""
    between: tuple[list[int], list[int]]
    """what stands between two texts; empty for one"""
    after: tuple[list[int], list[int]]
    """what stands after the last text"""
    types: tuple[int, int]
    """token types of the first and of the second text"""

    @property
    def specials(self) -> int:
        """How many special tokens there are."""
        return len(self.before[0]) + len(self.between[0]) + len(self.after[0])


class Tokenizer:
    """A `tokenizer.json` at work: equal to transformers' call with truncation, longest first, on the right.

    Special tokens are put around the text here, not by the library, whose own truncation of pairs also builds every
    combination of the parts it cuts off. Safe to share between threads.
    """

    def __init__(self, path: Path, max_length: int, token_types: bool = True) -> None:
        """Read the tokenizer at `path` and keep inputs within `max_length` tokens.

        `token_types=False` gives type 0 throughout. Raises `FolderError` when the file cannot be read and
        `OptionError` when `max_length` leaves no room for text.
        """
        from tokenizers import Tokenizer as Backend

        try:
            self._backend: Any = Backend.from_file(str(path))
        except Exception as error:  # the library raises bare `Exception`
            raise FolderError(f"{path}: cannot be read as a tokenizer ({error})") from error
        self._backend.no_truncation()
        self._backend.no_padding()
        self._token_types = token_types
        self.single, self.pair = self._learn_layout(None), self._learn_layout("a")
        self.max_length = max_length
        if max_length <= self.pair.specials:
            raise OptionError(f"max_length = {max_length} leaves no room beside {self.pair.specials} special tokens")

    def encode(self, text: str, text_pair: str | None = None) -> Tokens:
        """Tokenise one text or pair, cut to `max_length`: of a pair the longer text is cut first."""
        layout = self.single if text_pair is None else self.pair
        room = self.max_length - layout.specials
        first = self._ids(text, room)
        second = [] if text_pair is None else self._ids(text_pair, room)
        keep_first, keep_second = _longest_first(len(first), len(second), room)
        truncated = keep_first < len(first) or keep_second < len(second)
        ids = [*layout.before[0], *first[:keep_first], *layout.between[0], *second[:keep_second], *layout.after[0]]
        if not self._token_types:
            return Tokens(ids, [0] * len(ids), truncated)
        types = [*layout.before[1], *[layout.types[0]] * keep_first, *layout.between[1]]
        types += [*[layout.types[1]] * keep_second, *layout.after[1]]
        return Tokens(ids, types, truncated)

    def count_cut(self, texts: Iterable[str]) -> int:
        """Return how many texts are longer than `max_length`.

        A token stands for a byte at least, so that texts with no more bytes than there is room need not be read.
        """
        room = self.max_length - self.single.specials
        long = (text for text in texts if len(text.encode("utf-8", "surrogatepass")) > room)
        return sum(self.encode(text).truncated for text in long)

    def windows(self, text: str, overlap: int) -> list[tuple[Tokens, int, int]]:
        """Tokenise all of one text, in windows of `max_length` tokens of which neighbours share `overlap`.

        Returns each window with where it starts and ends in the text, in characters. Raises `OptionError` when the
        overlap leaves nothing new for a window.
        """
        layout = self.single
        room = self.max_length - layout.specials
        if not 0 <= overlap < room:
            raise OptionError(
                f"overlap = {overlap}: expected 0 to {room - 1}, windows of this model have {room} tokens"
            )
        ids, offsets = self.pieces(text)
        found = []
        for start in range(0, max(1, len(ids) - overlap), room - overlap):
            piece = ids[start : start + room]
            first, last = (offsets[start][0], offsets[start + len(piece) - 1][1]) if piece else (0, len(text))
            found.append((self.framed(piece), first, last))
        return found

    @property
    def room(self) -> int:
        """Tokens of one text that fit beside the special ones."""
        return self.max_length - self.single.specials

    @property
    def lead(self) -> int:
        """Special tokens before a text's first."""
        return len(self.single.before[0])

    def pieces(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the ids of all of a text, and where each starts and ends in it, in characters."""
        encoding = self._encoding(text)
        places = _SURROGATES.search(text) and _places(text)
        if places:
            return list(encoding.ids), [(places[start], places[end]) for start, end in encoding.offsets]
        return list(encoding.ids), [(int(start), int(end)) for start, end in encoding.offsets]

    def framed(self, ids: Sequence[int]) -> Tokens:
        """Return the ids of one text with the special tokens around them."""
        layout = self.single
        types = [*layout.before[1], *[layout.types[0]] * len(ids), *layout.between[1], *layout.after[1]]
        whole = [*layout.before[0], *ids, *layout.between[0], *layout.after[0]]
        return Tokens(whole, types if self._token_types else [0] * len(whole), False)

    def separate_unknown(self, text: str) -> str:
        """Return the text with blanks in words that are read as one unknown token, so that the rest of them is read.

        They are put around each character that the vocabulary does not know, and where a word gets longer than the
        vocabulary's model takes (100 characters in BERT's WordPiece).
        """
        model = self._backend.model
        unknown = self.id_of(getattr(model, "unk_token", None) or "")
        if unknown is None:
            return text
        longest = getattr(model, "max_input_chars_per_word", None)
        lengths: dict[str, int | None] = {}

        def length_of(character: str) -> int | None:
            """Characters that it counts as once it is normalised, None for one that is not known."""
            if character not in lengths:
                normal = self._backend.normalizer
                known = unknown not in self.plain_ids(character)
                counted = len(character if normal is None else normal.normalize_str(character))
                lengths[character] = counted if known else None
            return lengths[character]

        parts, at = [], 0
        for piece, (start, end) in zip(*self.pieces(text), strict=True):
            if piece != unknown or end - start < 2 or not any(length_of(text[i]) for i in range(start, end)):
                continue
            parts.append(text[at:start])
            room = longest
            for character in text[start:end]:
                length = length_of(character)
                if length is None:
                    parts.append(f" {character} ")
                    room = longest
                    continue
                if room is not None and length > room:
                    parts.append(" ")
                    room = longest
                if room is not None:
                    room -= length
                parts.append(character)
            at = end
        return "".join([*parts, text[at:]])

    def vocabulary(self) -> list[str | None]:
        """Return the piece of each id, None for special tokens and for ids without one."""
        known = self._backend.get_vocab(with_added_tokens=True)
        added = self._backend.get_added_tokens_decoder()
        pieces: list[str | None] = [None] * (max(known.values(), default=-1) + 1)
        for piece, place in known.items():
            if place not in added:
                pieces[place] = piece
        return pieces

    def id_of(self, piece: str) -> int | None:
        """Return the id of a piece or special token, None for one that is not known."""
        found = self._backend.token_to_id(piece)
        return None if found is None else int(found)

    @property
    def continues(self) -> str | None:
        """What a piece that goes on with a word begins with, as WordPiece has it; None for other vocabularies."""
        found = getattr(self._backend.model, "continuing_subword_prefix", None)
        return str(found) if found and type(self._backend.model).__name__ == "WordPiece" else None

    def _ids(self, text: str, room: int) -> list[int]:
        """Return the ids of `text`: all of them, or more than `room` of the first ones."""
        limit = _CHARACTERS_A_TOKEN * self.max_length
        while limit < len(text):
            space = _SPACE.search(text, limit)
            if space is None:
                break
            ids = self.plain_ids(text[: space.start()])
            if len(ids) > room + _MARGIN:
                return ids
            limit = 4 * space.end()
        return self.plain_ids(text)

    def plain_ids(self, text: str) -> list[int]:
        """Return the ids of a whole text, without special tokens around it."""
        return list(self._encoding(text).ids)

    def _encoding(self, text: str) -> Any:
        """The text alone as the library tokenises it."""
        try:
            return self._backend.encode(text, add_special_tokens=False)
        except TypeError:
            return self._backend.encode(join_surrogates(text), add_special_tokens=False)

    def _learn_layout(self, second: str | None) -> Layout:
        """Read the special tokens and types off an encoded example."""
        example = self._backend.encode("a", second)
        sides = example.sequence_ids
        parts: list[tuple[list[int], list[int]]] = [([], []), ([], []), ([], [])]
        types, seen = [0, 0], 0
        for side, token, kind in zip(sides, example.ids, example.type_ids, strict=True):
            if side is None:
                place = parts[seen] if second is not None or seen == 0 else parts[2]
                place[0].append(token)
                place[1].append(kind)
            else:
                seen, types[side] = side + 1, kind
        return Layout(parts[0], parts[1], parts[2], (types[0], types[1]))


def join_surrogates(text: str) -> str:
    """Return a text that UTF-8 can hold: a surrogate pair as the character that it means, half of one as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _places(text: str) -> list[int]:
    """Where each character of `join_surrogates(text)` starts in the text, and where the last ends."""
    places, at = [], 0
    while at < len(text):
        places.append(at)
        at += 2 if _PAIR.match(text, at) else 1
    return [*places, len(text)]


def split_pair(item: object, index: int) -> tuple[str, str | None]:
    """Return a text and its second text or None. Raises `TextError` naming `index` when `item` is neither."""
    if isinstance(item, str):
        return item, None
    if isinstance(item, (tuple, list)) and len(item) == 2 and all(isinstance(part, str) for part in item):
        return item[0], item[1]
    found = type(item).__name__
    if isinstance(item, (tuple, list)):
        found += f" of {', '.join(type(part).__name__ for part in item[:5]) or 'nothing'}"
    raise TextError(f"text {index} is no text: expected a str or a pair of them, not {found}")


def _longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how many tokens of each text stay, as the tokenizers library shares `room` between two texts."""
    if first + second <= room:
        return first, second
    if not second:
        return room, 0
    short, long = min(first, second), max(first, second)
    long = short if short > room else max(short, room - short)
    if short + long > room:
        short = room // 2
        long = short + room % 2
    return (short, long) if first <= second else (long, short)
