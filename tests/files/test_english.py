"""Which article belongs before a word."""

from __future__ import annotations

import pytest

from squeezebert.files.english import article_before

AN = """apple hour hours hour's honest’s Honour honorary heir heiress umbrella uninteresting unidentified unmarried
unissued urban usher utmost ugly English oneiric 8 80 8th 11 18th 11th 800 80000 IOU AI élan éclair island oral"""
A = """boat house university unique uniform unanimous European euro ewe one once one's use useful user usual usurper
utopia utility ubiquitous ukulele uranium UK US USB year yellow 7 1 100 9th 17th history hospital histories union
unison unit unicorn BBC PhD km"""
EITHER = """historic hotel heroic herb Euler houri yttrium xml xbox FBI NASA MRI UNESCO EU MP LED 1842 1100 11000 0 x X
b and is the in of der β α мир 東 ½ mRNA nfl æsthete"""


CASES = [(word, article) for words, article in ((AN, "an"), (A, "a"), (EITHER, None)) for word in words.split()]


@pytest.mark.parametrize(("word", "article"), CASES)
def test_the_first_sound_decides(word, article):
    assert article_before(word) == article


def test_anything_is_answered():
    for text in ("", " ", "\0", "\u0301a", "'", "\ufb01nal", "²", "٣", "x" * 100_000, "9" * 100_000, "\ufffd"):
        assert article_before(text) in ("a", "an", None)
