"""Which article belongs before a word."""

from __future__ import annotations

import pytest

from squeezebert.runtime.articles import article_before

AN = """apple hour hours hour's honest’s Honour honorary heir heiress umbrella uninteresting unidentified unmarried
unissued urban usher utmost ugly English oneiric onerous Oneida 8 80 8th 11 18th 11th 800 80000 18000 IOU AI
élan éclair island oral unironic unironically unironed unidiomatic unideological unimmunised uniced
unitemized unanimated Ewok hon F1 S3 H2O M25 R2D2"""
A = """boat house university unique uniform unanimous European euro ewe one once one's one-way use useful user
usual usually usurper utopia utility ubiquitous ukulele uranium UK US USB year yellow 7 1 100 110 180 9th
17th history hospital histories union unison unit unicorn unidirectional BBC PhD km Unesco Uefa Ukip Ucas U2
U21 Ubisoft Udemy Oaxacan Ouagadougou Honolulu ufologist uke uveal Usonian uninucleate unimanual B2B UNESCO"""
EITHER = """historic hotel heroic herb Euler houri yttrium xml xbox FBI NASA MRI EU MP LED 1842 1800 1100 0 0800 x X b
and is the in of der β α мир 東 ½ mRNA nfl æsthete hypothesis hors Hermès haute Urartian III AAA url uuid utf
uint usb urls us uk suv mba fbi Nvidia nginx href rsync ldap ngram mmap Mbappé Uma equals implies before
wins"""


CASES = [(word, article) for words, article in ((AN, "an"), (A, "a"), (EITHER, None)) for word in words.split()]


@pytest.mark.parametrize(("word", "article"), CASES)
def test_the_first_sound_decides(word, article):
    assert article_before(word) == article


def test_anything_is_answered():
    for text in ("", " ", "\0", "\u0301a", "'", "\ufb01nal", "²", "٣", "x" * 100_000, "9" * 100_000, "\ufffd"):
        assert article_before(text) in ("a", "an", None)
