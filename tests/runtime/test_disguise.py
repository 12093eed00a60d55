"""What hides words from a model is undone, and text that hides nothing stays as it is."""

from __future__ import annotations

import builtins
import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezebert.files.errors import DependencyError
from squeezebert.runtime import disguise
from squeezebert.runtime.disguise import undisguise, undisguised


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
        ("a \u202etoidi\u202c there", "a idiot there"),  # which is shown as idiot
        ("\u202etoidi", "idiot"),
        ("idi\u3164ot sh\uffa0it", "idiot shit"),
        ("i\u2800d\u115fi\u034fo\u1160t", "idiot"),
        ("id\x00iot", "idiot"),
        ("idiooooot", "idioot"),
        ("i\u0336d\u0336i\u0336o\u0336t\u0336", "idiot"),
        ("ïd\u0301\u0302\u0303iot", "ïd\u0301\u0302iot"),
        ("\ud800", "\ufffd"),
        ("\ud835\udd8e\ud835\udd89iot", "idiot"),  # as surrogate pairs
        ("i\nd\ni\no\nt", "idiot"),
        ("i·d·i·o·t", "idiot"),
        ("i•d•i•o•t", "idiot"),
        ("i'd'i'o't", "idiot"),
        ("(i)(d)(i)(o)(t)", "(idiot)"),
        ("[i] [d] [i] [o] [t]", "[idiot]"),
        ("i    d      i     o    t", "idiot"),
        ("i|d|i|o|t", "idiot"),
        ("i👏d👏i👏o👏t", "idiot"),
        ("ɪᴅɪᴏᴛ", "idiot"),
        ("🅸🅳🅸🅾🆃 🅘🅓🅘🅞🅣 🄸🄳🄸🄾🅃", "IDIOT IDIOT IDIOT"),
        ("🅱\ufe0fitch", "Bitch"),
        ("🇮🇩🇮🇴🇹", "IDIOT"),
        ("🇮 🇩 🇮 🇴 🇹", "IDIOT"),
        ("🇮\u200b🇩\u200b🇮\u200b🇴\u200b🇹", "IDIOT"),
        ("1diot $hit !diot @sshole", "idiot shit idiot asshole"),
        ("you a$$", "you ass"),
        ("1d1ot 1d10t $h1t $h!t 5h1t", "idiot idiot shit shit shit"),
        ("@$$hole @$$h0le $Hit", "asshole asshole sHit"),
        ("ѕһіт", "shit"),  # all Cyrillic
        (
            "Это не так, нет. You really are оут.",
            "Это не так, нет. You really are oyt.",
        ),  # the sentence alone is in Latin letters
    ],
)
def test_disguises_are_undone(written, meant):
    assert undisguise(written) == meant


@pytest.mark.parametrize(
    "text",
    [
        "A plain sentence, with 100 mp3 files at 5pm (b2b).",
        "The 1st, 2nd, 3rd and 4th at 7am: 5km, 100mg, 3D, 4K, $5, US$ 7, $TSLA; thanks @anna, @Bob!",
        "E.g. this, i.e. that; U.S. and U.K. laws, A or B",
        "Il n'y a-t-il pas d'eau ? Y a-t-il quelqu'un ? Il y a d'abord l'eau, qu'est-ce que c'est",
        "Đồng bằng Việt Nam, ngữ pháp",
        "Kadın, ısı, sıkıntı",
        "ја, осе, ухо, оса, саһа, оһох, хӏара, ѕвезда, ѕид",  # Cyrillic letters of several languages
        "кілька слів і їжа",
        "Καλημέρα, ΑΒΕ και όχι",
        "किताब पढ़ना अच्छा है",
        "ภาษาไทย สวัสดี",
        "בְּרֵאשִׁית",
        "السَّلامُ عليكم",
        "I ❤️ 🇩🇪 🇫🇷🇮🇹",
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
    for plain in undisguised(text):
        plain.encode("utf-8")
        kinds = [unicodedata.category(character) for character in plain if character not in "\n\r\t"]
        assert not {"Cc", "Cf"} & {*kinds}
        assert not re.search(r"([^\W\d_])\1\1", plain)


@pytest.mark.parametrize(
    ("written", "readings"),
    [
        ("you are a b i t c h ok", ("you are abitch ok", "you are a bitch ok")),
        ("a s s h o l e", ("asshole", "a sshole")),
        ("y o u  a r e  a n  i d i o t", ("youareanidiot", "you are an idiot", "you a re a n i diot")),
        ("y o u i d i o t. A dog", ("youidiotA dog", "youidiot A dog")),
        ("a i d s\na i d s", ("aidsaids", "aids aids", "a ids a ids")),
        ("b!t$h", ("bth", "bitsh")),
        ("such a $h!t", ("such aht", "such a shit")),
        ("b o a t", ("boat",)),
        ("nothing hidden", ("nothing hidden",)),
    ],
)
def test_letters_apart_are_read_both_ways(written, readings):
    assert undisguised(written) == readings


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("idi.ot idi-ot bit_ch bi|tch bi*tch sh**i**t", "idiot idiot bitch bitch bitch shit"),
        ("$HIT bi9ch 8itch id€ot bi+ch bit(h shi+", "sHIT bigch bitch ideot bitch bitch shit"),
        ("sħɨŧ bɪtcɦ kıll ɑss", "shit bitch kill ass"),
        ("such ʇıɥs", "such shit"),
        ("ʇoıpᴉ", "idiot"),
    ],
)
def test_what_ordinary_text_has_too_is_guessed_in_a_reading_of_its_own(written, meant):
    first, *_, last = undisguised(written)
    assert last == meant
    assert first != meant


def test_guesses_leave_addresses_and_plain_text():
    for text in ("see https://a-b.example/c_d and a.b-c@d.com", "a plain sentence: nothing to guess here!", "5 kg"):
        assert undisguised(text) == (text,)


def test_a_text_of_a_megabyte_takes_a_moment():
    assert len(undisguise("i d i o t, yоu " * 70_000)) > 500_000


@pytest.mark.parametrize(
    "text",
    [
        "@" * 100_000,
        "a@" * 50_000,
        "a" + "\u0301\u0323" * 50_000,
        "a" + "\u0f73" * 50_000,  # no mark by itself, but taken apart into two
        "a" + "\u200b\u0301\u200b\u0323" * 25_000,  # marks that come together once what is between them has gone
        "a " * 50_000,
        "i d" + " " * 100_000,
        "a'" * 50_000,
        "ԁ" * 100_000,
    ],
    ids=["signs", "addresses", "marks", "double marks", "hidden marks", "letters", "gap", "apostrophes", "one word"],
)
def test_time_is_linear(text):
    start = time.perf_counter()
    undisguised(text)
    assert time.perf_counter() - start < 5


def test_a_text_that_grows_too_long_is_left_there():
    assert undisguised("\ufdfa" * 100, 1800) == undisguised("\ufdfa" * 100)
    assert len(undisguised("\ufdfa" * 100_000, 100_000)[0]) > 100_000


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
