"""What hides words from a model is undone, and text that hides nothing stays as it is."""

from __future__ import annotations

import builtins
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezebert.files.errors import DependencyError
from squeezebert.runtime import disguise
from squeezebert.runtime.disguise import undisguise


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("you are an i d i o t", "you are an idiot"),
        ("i.d.i.o.t!", "idiot!"),
        ("i-d-i-o-t", "idiot"),
        ("yоu аre аn idiоt", "you are an idiot"),  # Cyrillic о and а
        ("ｙｏｕ 𝖎𝖉𝖎𝖔𝖙", "you idiot"),
        ("Ⓘⓓⓘⓞⓣ", "Idiot"),
        ("h@te y0u", "hate you"),
        ("i\u200bd\u200bi\u00adot", "idiot"),
        ("\u202eidiot\u202c", "idiot"),
        ("id\x00iot", "idiot"),
        ("idiooooot", "idioot"),
        ("i\u0336d\u0336i\u0336o\u0336t\u0336", "idiot"),
        ("ïd\u0301\u0302\u0303iot", "ïd\u0301iot"),
        ("\ud800", "\ufffd"),
    ],
)
def test_disguises_are_undone(written, meant):
    assert undisguise(written) == meant


@pytest.mark.parametrize(
    "text",
    [
        "A plain sentence, with 100 mp3 files at 5pm (b2b).",
        "Grüße aus Köln, señor; naïve café",
        "привет мир",
        "это test слово",
        "مرحبا بالعالم",
        "שלום עולם",
        "日本語のテキスト と漢字",
        "한국어 문장",
        "🙂 👍🏽 ok",
        "one\ntwo\tthree",
        "call me at 10:30 or write to a.b@c.com",
        "",
    ],
)
def test_text_without_disguise_stays(text):
    assert undisguise(text) == text


@given(st.text())
def test_any_text_is_read_and_hides_nothing_afterwards(text):
    plain = undisguise(text)
    plain.encode("utf-8")
    assert not any(unicodedata.category(character) in ("Cc", "Cf") for character in plain if character not in "\n\r\t")
    assert not re.search(r"([^\W\d_])\1\1", plain)


def test_a_text_of_a_megabyte_takes_a_moment():
    assert len(undisguise("i d i o t, yоu " * 70_000)) > 500_000


def test_without_the_extra_the_way_out_is_named(monkeypatch):
    def without(name, *rest, **more):
        if name == "decancer_py":
            raise ImportError("no module")
        return real(name, *rest, **more)

    real = builtins.__import__
    disguise._cured.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    assert undisguise("plain") == "plain"
    with pytest.raises(DependencyError, match=r"squeezebert\[moderation\].*disguises: false"):
        undisguise("yоu there")
    disguise._cured.cache_clear()
