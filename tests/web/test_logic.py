"""The page's own modules, run by Node: they read and answer as the runtime does. No package of npm is needed."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend

from squeezebert.runtime.predictor import Predictor
from squeezebert.runtime.tokens import Tokenizer, _longest_first
from squeezebert.web.characters import character_table
from squeezebert.web.engine import CPU_FILES, find_engine
from tiny_checkpoints import texts, tiny_tokenizer

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js runs the page's modules here")

ODD = [
    "",
    " ",
    "The TRÁIN, quite late!",
    "\t\n the \r\n train \u00a0 late",
    "🙂🚲👩‍👩‍👧 👍🏽",
    "שלום עולם, مرحبا بالعالم",
    "漢字の天気 𠀀𠀁",
    "한국어 각",
    "null\0inside control\x1cchars\x7f\u0085",
    "[SEP] written out [MASK] [mask]",
    "e\u0301" * 30,
    "ΑΣ ΑΣΑ İstanbul ǅ straße ﬁ",
    "x" * 101 + " " + "x" * 100,
    "\ufeff\ufffd\u2028\u200b\u3000a",
    "half \ud83d a pair",
]


def run(kind: str, **job: Any) -> Any:
    """Have Node do a job of harness.mjs."""
    # Halves of surrogate pairs as JSON's escapes: standard input is UTF-8
    done = subprocess.run(
        ["node", Path(__file__).with_name("harness.mjs")],
        input=json.dumps({"kind": kind, **job}),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def random_texts(count: int) -> list[str]:
    """Texts of characters from everywhere in Unicode, some scripts often."""
    generator = random.Random(0)
    ranges = [(0x20, 0x7F), (0x80, 0x250), (0x300, 0x370), (0x370, 0x1000), (0x1000, 0xD800), (0xE000, 0x10000)]
    ranges += [(0x10000, 0x20000), (0x1F300, 0x1FB00), (0x20000, 0x32000)]
    found = []
    for _ in range(count):
        pool = generator.sample(ranges, 2)
        letters = [chr(generator.randrange(*generator.choice(pool))) for _ in range(generator.randrange(1, 60))]
        found.append("".join(letter if generator.random() < 0.85 else " " for letter in letters))
    return found


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer().save_pretrained(folder)
    return folder / "tokenizer.json"


@pytest.fixture(scope="module")
def table(path):
    return character_table(path)


def test_characters_become_what_the_tokenizer_makes_of_them(path, table):
    backend: Any = Backend.from_file(str(path))
    items = [text for text in [*ODD, *random_texts(1500)] if not any("\ud800" <= c < "\ue000" for c in text)]
    for text, got in zip(items, run("characters", table=table, texts=items), strict=True):
        normal = backend.normalizer.normalize_str(text)
        assert got["normal"] == normal, ascii(text)
        assert got["words"] == [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal)], ascii(text)


def test_a_cased_tokenizer_has_another_table(path, tmp_path, table):
    about = json.loads(path.read_text())
    about["normalizer"] |= {"lowercase": False, "strip_accents": False}
    cased = tmp_path / "tokenizer.json"
    cased.write_text(json.dumps(about))
    other = character_table(cased)
    assert not other["mapped"] and table["mapped"]
    (got,) = run("characters", table=other, texts=["Árvíz\0 漢字!"])
    assert got == {"normal": "Árvíz  漢  字 !", "words": ["Árvíz", "漢", "字", "!"]}


def test_tokenizers_of_another_kind_have_no_table(path, tmp_path):
    about = json.loads(path.read_text())
    about["normalizer"] = {"type": "NFC"}
    other = tmp_path / "tokenizer.json"
    other.write_text(json.dumps(about))
    assert character_table(other) is None


def test_pairs_of_every_length_share_the_room_as_in_the_runtime():
    cases = [(first, second, room) for first in range(12) for second in range(12) for room in range(1, 14)]
    got = run("calls", module="tokens.js", calls=[["longestFirst", *case] for case in cases])
    assert got == [list(_longest_first(*case)) for case in cases]


@pytest.mark.parametrize("task", ["single_label", "multi_label", "regression"])
@pytest.mark.parametrize("calibrated", [True, False])
def test_logits_mean_what_they_mean_in_the_runtime(task, calibrated):
    labels = () if task == "regression" else ("a", "b", "c", "d")
    thresholds = (0.2, 0.5, 0.5, 0.9) if task == "multi_label" else None
    facts = {"task": task, "labels": labels, "temperature": 1.7, "calibrated_logits": calibrated}
    facts["thresholds"] = thresholds
    logits = np.random.default_rng(0).normal(0, 5, (50, max(1, len(labels))))
    logits[0], logits[1] = 800, -800
    predictor: Any = object.__new__(Predictor)
    predictor.manifest = SimpleNamespace(**facts)
    wanted = predictor.probabilities(logits)
    got = run("calls", module="answers.js", calls=[["probabilities", row, facts] for row in logits.tolist()])
    assert np.allclose(got, wanted, rtol=1e-12, atol=1e-15)
    answers = run("calls", module="answers.js", calls=[["answer", row, facts] for row in got])
    tokens = SimpleNamespace(truncated=False, ids=[])
    for row, answer in zip(np.asarray(got), answers, strict=True):
        expected = predictor._answer(row, tokens)
        if task == "regression":
            assert answer == {"value": expected.value}
            continue
        assert answer["given"] == [row["label"] for row in answer["rows"] if row["given"]] or len(answer["given"]) > 1
        assert set(answer["given"]) == set(expected.labels)
        assert {row["label"]: row["probability"] for row in answer["rows"]} == expected.probabilities


def test_the_faster_form_answers_and_fp32_where_none_is():
    assert run("compare", times={"int8": [3], "fp32": [5]})["fastest"] == "int8"
    assert run("compare", times={"int8": [5], "fp32": [3]})["fastest"] == "fp32"
    assert run("compare", times={"int8": [4], "fp32": [4]})["fastest"] == "fp32"
    assert run("compare", times={"int8": [4]})["fastest"] == "int8"


def test_a_slow_device_is_not_measured_for_long():
    quick, slow = (run("compare", times={"int8": [ms], "fp32": [ms]}) for ms in (10, 2000))
    assert slow["runs"] == 20 and quick["runs"] == 60  # two forms, each once untimed and once timed a round


def test_one_slow_run_does_not_decide():
    found = run("compare", times={"int8": [9, 9, 9, 9, 9, 9, 9], "fp32": [8, 8, 8, 8, 8, 8, 900]})
    assert found["medians"] == {"int8": 9, "fp32": 8} and found["fastest"] == "fp32"


@pytest.mark.web
@pytest.mark.parametrize("max_length", [6, 40])
@pytest.mark.parametrize("types", [True, False])
def test_token_ids_are_those_of_the_runtime(path, table, max_length, types):
    (library,) = (file for file in CPU_FILES if "tokenizers" in file)
    tokenizer = Tokenizer(path, max_length, types)
    items = [*ODD, *texts(20, seed=9), *random_texts(1500)]
    items += [
        "a " * 5000,
        "a" * 200_000,
        "漢" * 3000 + " " + "b " * 3000,
        "é" * 2000 + " x",
        "🙂" * 700 + " the train",
    ]
    pairs = [(text, None) for text in items]
    pairs += [(first, second) for first in items[:40] for second in items[1:40:3]]
    pairs += [(items[2], second) for second in items[-5:]]
    layouts = {"single": asdict(tokenizer.single), "pair": asdict(tokenizer.pair)}
    facts = {"layouts": layouts, "max_length": max_length, "token_types": types}
    got = run(
        "encode",
        library=(find_engine(None, print) / library).as_uri(),
        tokenizer=json.loads(path.read_text()),
        table=table,
        facts=facts,
        items=pairs,
    )
    for pair, found in zip(pairs, got, strict=True):
        assert found == asdict(tokenizer.encode(*pair)), ascii(pair)[:300]
