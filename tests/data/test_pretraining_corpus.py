"""A corpus to pretrain on: what is read, cleaned, left out, split and written, and that a cut-off build goes on."""

from __future__ import annotations

import bz2
import errno
import json
import shutil
import subprocess
import sys
import textwrap
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from pretraining_text import write_documents
from squeezebert.data.options import CorpusOptions
from squeezebert.data.pretraining import shards, workers
from squeezebert.data.pretraining.building import MANIFEST, build_corpus
from squeezebert.data.pretraining.documents import RawDocument, clean, held_out, read_documents
from squeezebert.data.pretraining.rows import PretrainingCorpus
from squeezebert.data.pretraining.shards import read_shard
from squeezebert.data.pretraining.wikipedia import paragraphs_of
from squeezebert.files.errors import FolderError, OptionError, TableError

OPTIONS = {"vocabulary_size": 200, "shortest": 5, "held_out": 0.1, "workers": 1}

DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" version="0.10" xml:lang="en">
<siteinfo><sitename>Wikipedia</sitename><dbname>enwiki</dbname><base>x</base><generator>g</generator>
<case>first-letter</case><namespaces><namespace key="0" case="first-letter"/>
<namespace key="1" case="first-letter">Talk</namespace></namespaces></siteinfo>
{pages}
</mediawiki>
"""
PAGE = """<page><title>{title}</title><ns>{ns}</ns><id>{id}</id>{redirect}<revision><id>1{id}</id>
<timestamp>2020-01-01T00:00:00Z</timestamp><contributor><username>u</username><id>1</id></contributor>
<model>wikitext</model><format>text/x-wiki</format><text xml:space="preserve">{text}</text>
<sha1>x</sha1></revision></page>"""
ARTICLE = """{{Infobox river|length=12 km}}
[[File:River.jpg|thumb|A picture of it]]
The '''Aare''' is a [[river]] in [[Switzerland|the Swiss]] country.&lt;ref&gt;A book&lt;/ref&gt; It flows ''west''.

== Course ==
It rises in the glaciers.
{| class="wikitable"
| cell || other cell
|}
* It passes [[Bern]].
== References ==
Not to be read.
[[Category:Rivers]]"""


def write_dump(path: Path) -> Path:
    pages = [
        PAGE.format(title="Aare", ns=0, id=1, redirect="", text=ARTICLE),
        PAGE.format(title="Talk:Aare", ns=1, id=2, redirect="", text="Somebody says something here about it."),
        PAGE.format(title="Aar", ns=0, id=3, redirect='<redirect title="Aare" />', text="#REDIRECT [[Aare]]"),
        PAGE.format(title="Rhine", ns=0, id=4, redirect="", text="The Rhine is a river that many people know."),
    ]
    path.write_bytes(bz2.compress(DUMP.format(pages="\n".join(pages)).encode()))
    return path


def documents_of(corpus: PretrainingCorpus, split: str) -> list[str]:
    tokenizer = corpus.tokenizer()
    return [
        tokenizer.decode(shard.ids[begin:end])
        for shard in corpus.split(split)
        for begin, end in pairwise(shard.starts)
    ]


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.arrow"))}


def test_wikitext_becomes_running_text():
    plain = paragraphs_of(ARTICLE.replace("&lt;", "<").replace("&gt;", ">"))
    assert [line for line in plain if line.strip()] == [
        "The Aare is a river in the Swiss country. It flows west.",
        "It rises in the glaciers.",
        "It passes Bern.",
    ]


def test_a_dump_gives_its_articles_alone(tmp_path):
    dump = write_dump(tmp_path / "wiki.xml.bz2")
    found = list(read_documents([str(dump)]))
    assert [raw.wikitext for raw in found] == [True, True]
    cleaned = [clean(raw, 3) for raw in found]
    assert cleaned[0].paragraphs[0] == "The Aare is a river in the Swiss country. It flows west."
    assert cleaned[1].paragraphs == ["The Rhine is a river that many people know."]


@pytest.mark.parametrize("whole", [b"<html>nothing of the kind</html>", b"no xml at all"])
def test_what_is_no_dump_is_refused(tmp_path, whole):
    path = tmp_path / "wiki.xml"
    path.write_bytes(whole)
    with pytest.raises(TableError, match=r"wiki\.xml: "):
        list(read_documents([str(path)]))


def test_a_dump_that_was_cut_off_is_named(tmp_path):
    dump = write_dump(tmp_path / "wiki.xml.bz2")
    dump.write_bytes(dump.read_bytes()[:-40])
    with pytest.raises(TableError, match=r"cannot be read on as a MediaWiki XML dump.*get it again"):
        list(read_documents([str(dump)]))


def test_cleaning_leaves_text_and_one_digest_for_copies():
    raw = RawDocument("A\u00a0 line\twith\u200b signs\x07.\n\n* * *\n1234\nCafe\u0301 opens.", wikitext=False)
    found = clean(raw, 3)
    assert found.paragraphs == ["A line with signs.", "Café opens."]
    copy = clean(RawDocument("a line WITH signs\ncafé opens", wikitext=False), 3)
    assert copy.digest == found.digest
    assert clean(RawDocument("a line with other signs\ncafé opens", wikitext=False), 3).digest != found.digest
    assert clean(RawDocument("too short", wikitext=False), 3) is None


def test_the_held_out_share_is_kept_and_depends_on_the_words_alone():
    digests = np.random.default_rng(0).integers(0, 2**63, 20_000).tolist()
    chosen = [held_out(digest, 0.03, 0) for digest in digests]
    assert 0.025 < np.mean(chosen) < 0.035
    assert chosen == [held_out(digest, 0.03, 0) for digest in digests]
    assert chosen != [held_out(digest, 0.03, 1) for digest in digests]


def test_a_build_holds_every_document_once(tmp_path):
    source = tmp_path / "text"
    source.mkdir()
    write_documents(source / "a.txt", 60)
    write_documents(source / "b.txt", 30, seed=1)
    (source / "c.txt").write_text((source / "b.txt").read_text().upper() + "\n\nToo short.\n")
    (source / "ATTRIBUTION.tsv").write_text("file\tlicence\n")
    manifest = build_corpus([str(source)], tmp_path / "corpus", CorpusOptions(**OPTIONS))
    corpus = PretrainingCorpus.open(tmp_path / "corpus")
    train, out = documents_of(corpus, "train"), documents_of(corpus, "held_out")
    assert len(train) + len(out) == 90
    assert len(set(train) | set(out)) == 90
    assert out
    assert manifest["left_out"] == {"copies": 30, "too_short": 1, "unreadable": 0}
    assert (tmp_path / "corpus" / "notices" / "1-ATTRIBUTION.tsv").read_text() == "file\tlicence\n"
    assert any(text.startswith("document 7 of 0.") for text in train + out)
    # Sentences end where a full stop is
    stop = corpus.tokenizer().convert_tokens_to_ids(".")
    for shard in corpus.split("train"):
        last = shard.ends - 1 + np.repeat(shard.starts[:-1], np.diff(shard.firsts))
        assert set(shard.ids[last].tolist()) == {stop}


def test_workers_and_stretches_change_nothing(tmp_path, monkeypatch):
    source = write_documents(tmp_path / "text.txt", 120)
    monkeypatch.setattr(workers, "_STRETCH", 2000)
    for number in (1, 3):
        build_corpus([str(source)], tmp_path / f"by-{number}", CorpusOptions(**OPTIONS | {"workers": number}))
    assert all_bytes(tmp_path / "by-1") == all_bytes(tmp_path / "by-3")


def test_a_build_that_was_cut_off_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    source = write_documents(tmp_path / "text.txt", 200)
    monkeypatch.setattr(workers, "_STRETCH", 2000)
    options = CorpusOptions(**OPTIONS | {"shard_tokens": 1500})
    whole = build_corpus([str(source)], tmp_path / "whole", options)
    assert len(whole["shards"]) > 3
    write = shards.ShardWriter.write
    written = []

    def fails(self, path):
        if len(written) == 4:
            (path.with_name(f".{path.name}.part")).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path.name)
        return write(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(shards.ShardWriter, "write", fails)
        with pytest.raises(FolderError, match="No space left on device: finished shards stay; repeat the command"):
            build_corpus([str(source)], tmp_path / "cut", options)
    assert not (tmp_path / "cut" / MANIFEST).exists()
    assert not list((tmp_path / "cut").glob(".*.part"))
    with pytest.raises(FolderError, match="not finished: repeat its command"):
        PretrainingCorpus.open(tmp_path / "cut")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cut").glob("*.arrow")}
    lines: list[str] = []
    cut = build_corpus([str(source)], tmp_path / "cut", options, lines.append)
    assert any("going on behind shard 2" in line for line in lines)
    assert all_bytes(tmp_path / "cut") == all_bytes(tmp_path / "whole")
    assert cut["splits"] == whole["splits"]
    assert cut["left_out"] == whole["left_out"]
    assert all((tmp_path / "cut" / name).stat().st_mtime_ns == time for name, time in list(before.items())[:2])
    # Once more: nothing is made again
    lines.clear()
    build_corpus([str(source)], tmp_path / "cut", options, lines.append)
    assert lines == [f"the corpus is there already: {tmp_path / 'cut'}"]


def test_a_shard_cut_short_is_named_and_made_anew(tmp_path, monkeypatch):
    source = write_documents(tmp_path / "text.txt", 200)
    monkeypatch.setattr(workers, "_STRETCH", 2000)
    options = CorpusOptions(**OPTIONS | {"shard_tokens": 1500})
    build_corpus([str(source)], tmp_path / "corpus", options)
    whole = all_bytes(tmp_path / "corpus")
    damaged = tmp_path / "corpus" / "train-00001.arrow"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(FolderError, match=r"train-00001\.arrow: \d+ bytes long instead of \d+, cut short: repeat"):
        PretrainingCorpus.open(tmp_path / "corpus")
    with pytest.raises(FolderError, match=r"train-00001\.arrow: cut short or damaged"):
        read_shard(damaged)
    build_corpus([str(source)], tmp_path / "corpus", options)
    assert all_bytes(tmp_path / "corpus") == whole


def test_a_trained_vocabulary_is_the_same_again(tmp_path):
    source = write_documents(tmp_path / "text.txt", 60)
    made = []
    for name in ("one", "two"):
        build_corpus([str(source)], tmp_path / name, CorpusOptions(**OPTIONS))
        made.append(AutoTokenizer.from_pretrained(tmp_path / name / "tokenizer"))
    assert made[0].get_vocab() == made[1].get_vocab()
    assert made[0]("The TEAM won")["input_ids"] == made[0]("the team won")["input_ids"]
    assert made[0].convert_ids_to_tokens(made[0]("team")["input_ids"]) == ["[CLS]", "team", "[SEP]"]


def test_a_table_has_a_document_a_row(tmp_path):
    table = tmp_path / "texts.jsonl"
    rows = [{"text": f"the team won the cup number {n}.\nand the bank lost a share."} for n in range(40)]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = build_corpus([str(table)], tmp_path / "corpus", CorpusOptions(**OPTIONS))
    assert sum(split["documents"] for split in manifest["splits"].values()) == 40


def test_bad_sources_and_options_are_refused(tmp_path, tiny_tokenizer):
    options = CorpusOptions(**OPTIONS)
    with pytest.raises(TableError, match="nothing"):
        build_corpus([str(tmp_path / "nothing.txt")], tmp_path / "a", options)
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    with pytest.raises(TableError, match=r"empty\.txt"):
        build_corpus([str(empty)], tmp_path / "b", options)
    latin = tmp_path / "latin.txt"
    latin.write_bytes("the caf\xe9 is open and the team won the cup\n".encode("latin-1"))
    with pytest.raises(TableError, match=r"latin\.txt:1: badly encoded"):
        build_corpus([str(latin)], tmp_path / "c", options)
    giant = tmp_path / "giant.txt"
    giant.write_text("the team won the cup and the bank lost a share. " * 3000)
    with pytest.raises(TableError, match=r"all 1 documents fall on one side.*blank lines"):
        build_corpus([str(giant)], tmp_path / "d", options)
    short = tmp_path / "short.txt"
    short.write_text("one two\n\nthree four\n")
    with pytest.raises(TableError, match="no document has 5 words or more"):
        build_corpus([str(short)], tmp_path / "e", options)


def test_a_vocabulary_without_mask_is_refused(tmp_path, tiny_tokenizer):
    tiny_tokenizer.save_pretrained(tmp_path / "plain")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = tmp_path / "plain" / name
        path.write_text(path.read_text().replace("[MASK]", "[maske]"))
    config = json.loads((tmp_path / "plain" / "tokenizer_config.json").read_text())
    config = {key: value for key, value in config.items() if key != "mask_token"} | {"mask_token": None}
    (tmp_path / "plain" / "tokenizer_config.json").write_text(json.dumps(config))
    source = write_documents(tmp_path / "text.txt", 30)
    with pytest.raises(OptionError, match=r"it has no \[MASK\]"):
        build_corpus(
            [str(source)], tmp_path / "corpus", CorpusOptions(**OPTIONS | {"vocabulary": str(tmp_path / "plain")})
        )
    with pytest.raises(OptionError, match="--vocabulary nowhere: no tokenizer there"):
        build_corpus([str(source)], tmp_path / "other", CorpusOptions(**OPTIONS | {"vocabulary": "nowhere"}))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    source = write_documents(tmp_path / "text.txt", 60)
    output = tmp_path / "corpus"
    output.mkdir()
    (output / "mine.txt").write_text("keep")
    with pytest.raises(FolderError, match="not empty and holds no corpus"):
        build_corpus([str(source)], output, CorpusOptions(**OPTIONS))
    assert (output / "mine.txt").read_text() == "keep"
    shutil.rmtree(output)
    build_corpus([str(source)], output, CorpusOptions(**OPTIONS))
    with pytest.raises(FolderError, match=r"other options or sources \(--seed\)"):
        build_corpus([str(source)], output, CorpusOptions(**OPTIONS | {"seed": 1}))
    source.write_text(source.read_text() + "\n\nOne more document that is long enough.\n")
    with pytest.raises(FolderError, match=r"\(the text\)"):
        build_corpus([str(source)], output, CorpusOptions(**OPTIONS))
    build_corpus([str(source)], output, CorpusOptions(**OPTIONS | {"overwrite": True}))


def test_an_overwrite_deletes_nothing_but_a_corpus(tmp_path):
    source = write_documents(tmp_path / "text.txt", 60)
    output, again = tmp_path / "corpus", CorpusOptions(**OPTIONS | {"overwrite": True, "seed": 1})
    build_corpus([str(source)], output, CorpusOptions(**OPTIONS))
    before = all_bytes(output)
    with pytest.raises(TableError, match=r"typo\.txt"):
        build_corpus([str(tmp_path / "typo.txt")], output, again)
    assert all_bytes(output) == before
    # What is read must not lie where it would be replaced
    inside = output / "raw.txt"
    inside.write_text(source.read_text())
    with pytest.raises(FolderError, match=r"--text .*raw\.txt lies in it"):
        build_corpus([str(inside)], output, again)
    with pytest.raises(FolderError, match=r"raw\.txt beside a corpus: move it away"):
        build_corpus([str(source)], output, again)
    with pytest.raises(FolderError, match=r"--vocabulary .* lies in it"):
        build_corpus([str(source)], output, CorpusOptions(**OPTIONS | {"vocabulary": str(output / "tokenizer")}))
    assert inside.exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "corpus.json").write_text('{"a": 1}')
    with pytest.raises(FolderError, match="not of this kind of corpus"):
        build_corpus([str(source)], other, again)
    assert (other / "corpus.json").exists()


def test_a_build_without_a_shard_binds_nobody(tmp_path):
    latin = tmp_path / "latin.txt"
    write_documents(latin, 60)
    latin.write_bytes(latin.read_bytes() + b"\n\nthe caf\xe9 is open and the team won the cup.\n")
    with pytest.raises(TableError, match="badly encoded"):
        build_corpus([str(latin)], tmp_path / "corpus", CorpusOptions(**OPTIONS))
    manifest = build_corpus([str(latin)], tmp_path / "corpus", CorpusOptions(**OPTIONS | {"encoding": "latin-1"}))
    assert sum(split["documents"] for split in manifest["splits"].values()) == 61


def test_damage_that_keeps_the_size_is_found_and_mended(tmp_path):
    source = write_documents(tmp_path / "text.txt", 200)
    build_corpus([str(source)], tmp_path / "corpus", CorpusOptions(**OPTIONS))
    whole = all_bytes(tmp_path / "corpus")
    damaged = tmp_path / "corpus" / "train-00000.arrow"
    content = bytearray(damaged.read_bytes())
    content[2000:2200] = b"\xff" * 200
    damaged.write_bytes(content)
    with pytest.raises(FolderError, match=r"train-00000\.arrow: damaged: repeat the `corpus` command"):
        PretrainingCorpus.open(tmp_path / "corpus").check_shards()
    lines: list[str] = []
    build_corpus([str(source)], tmp_path / "corpus", CorpusOptions(**OPTIONS), lines.append)
    assert any("train-00000.arrow is not as it was written" in line for line in lines)
    assert all_bytes(tmp_path / "corpus") == whole


def test_a_tokenizer_that_is_gone_is_missed_and_made_again(tmp_path):
    source = write_documents(tmp_path / "text.txt", 60)
    build_corpus([str(source)], tmp_path / "corpus", CorpusOptions(**OPTIONS))
    whole = (tmp_path / "corpus" / "tokenizer" / "tokenizer.json").read_text()
    shutil.rmtree(tmp_path / "corpus" / "tokenizer")
    with pytest.raises(FolderError, match="not the tokenizer that made the corpus"):
        PretrainingCorpus.open(tmp_path / "corpus").tokenizer()
    build_corpus([str(source)], tmp_path / "corpus", CorpusOptions(**OPTIONS))
    assert (tmp_path / "corpus" / "tokenizer" / "tokenizer.json").read_text() == whole
    PretrainingCorpus.open(tmp_path / "corpus").tokenizer()


def test_special_tokens_in_a_text_are_text(tmp_path, tiny_tokenizer):
    tiny_tokenizer.save_pretrained(tmp_path / "vocabulary")
    source = write_documents(tmp_path / "text.txt", 60)
    source.write_text(source.read_text() + "\n\nthe team [SEP] won [MASK] the cup [CLS] and [PAD] lost.\n")
    told = CorpusOptions(**OPTIONS | {"vocabulary": str(tmp_path / "vocabulary")})
    build_corpus([str(source)], tmp_path / "corpus", told)
    corpus = PretrainingCorpus.open(tmp_path / "corpus")
    special = {*tiny_tokenizer.all_special_ids} - {tiny_tokenizer.unk_token_id}
    for split in ("train", "held_out"):
        for shard in corpus.split(split):
            assert not special & set(shard.ids.tolist())


def test_an_article_that_no_parser_can_take_apart_is_left_out(tmp_path, monkeypatch):
    def fails(wikitext):
        if "{{{{" in wikitext:
            raise RecursionError("maximum recursion depth exceeded")
        return paragraphs_of(wikitext)

    monkeypatch.setattr("squeezebert.data.pretraining.wikipedia.paragraphs_of", fails)
    texts = [f"The team number {n} won the cup in the year {n}." for n in range(1, 40)]
    pages = [PAGE.format(title=f"A {n}", ns=0, id=n, redirect="", text=text) for n, text in enumerate(texts, 1)]
    pages.append(PAGE.format(title="Nested", ns=0, id=99, redirect="", text="{{{{ the team won the cup"))
    dump = tmp_path / "wiki.xml"
    dump.write_text(DUMP.format(pages="\n".join(pages)))
    lines: list[str] = []
    manifest = build_corpus([str(dump)], tmp_path / "corpus", CorpusOptions(**OPTIONS), lines.append)
    assert sum(split["documents"] for split in manifest["splits"].values()) == 39
    assert manifest["left_out"]["unreadable"] == 1
    assert any("left out, its markup cannot be taken apart: 'Nested' (RecursionError)" in line for line in lines)


def test_deeply_nested_templates_are_no_trouble():
    assert paragraphs_of("{{a|" * 3000 + "}}" * 3000 + "\nThe team won.")[-1] == "The team won."


def test_wikitext_leaves_no_markup():
    text = """<!-- == References == -->
__NOTOC__
One<br>line and [[fr:Aare]]a [[Bern|town]][[File:a.jpg|thumb|x [[y]]]].
== Sources ==
It springs from two sources.
== Later ==
The end.{{cite|a={{b|c}}}}<ref name="a">A</ref>
{{Infobox unclosed
| a = b
"""
    plain = [line for line in paragraphs_of(text) if line.strip()]
    assert plain == ["One line and a town.", "The end."]


def test_every_one_of_many_references_is_taken_out():
    assert paragraphs_of("A word.<ref>a</ref> " * 3000) == [("A word. " * 3000).strip()]


def test_folders_of_folders_and_licences(tmp_path):
    source = tmp_path / "text"
    (source / "below").mkdir(parents=True)
    write_documents(source / "below" / "a.txt", 10)
    with pytest.raises(TableError, match=r"its text lies in folders of its own: name those, as .*below"):
        list(read_documents([str(source)]))
    write_documents(source / "b.txt", 10)
    (source / "LICENSE.txt").write_text("Permission is granted to read this licence as often as you like.\n")
    (source / "README.txt").write_text("Read this before anything else that lies here.\n")
    assert len(list(read_documents([str(source)]))) == 10


def test_scripts_without_spaces_are_not_too_short():
    raw = RawDocument("天気がいいから散歩しましょう。明日は雨が降るかもしれません。", wikitext=False)
    assert clean(raw, 8) is not None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are looked up in /proc")
def test_workers_end_when_their_build_is_killed(tmp_path):
    source = write_documents(tmp_path / "text.txt", 4000)
    told = [sys.executable, "-m", "squeezebert", "corpus", "--text", str(source), "--output", str(tmp_path / "corpus")]
    process = subprocess.Popen([*told, "--workers", "2", "--vocabulary-size", "200"], stderr=subprocess.DEVNULL)

    def children() -> list[int]:
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split()]

    deadline = time.monotonic() + 60
    while len(children()) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = children()
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workers
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_links_with_a_colon_are_words_unless_they_lead_to_files_or_languages():
    text = "He was in ''[[CSI: Crime Scene]]'' and [[UFC: Undisputed|a game]], [[:fr:Aare|that river]].[[de:Aare]]"
    assert paragraphs_of(text) == ["He was in CSI: Crime Scene and a game, that river."]


def test_what_is_refused_at_its_end_leaves_room_for_what_is_given_instead(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the team won the cup and the bank lost a share. " * 3000)
    options = CorpusOptions(**OPTIONS)
    with pytest.raises(TableError, match="fall on one side"):
        build_corpus([str(text)], tmp_path / "corpus", options)
    write_documents(text, 200)
    assert build_corpus([str(text)], tmp_path / "corpus", options)["splits"]["held_out"]["documents"]


def test_wrapped_text_is_noticed(tmp_path):
    wrapped = textwrap.wrap("the team won the cup and the bank lost a share of its trade " * 40, 72)
    for name, lines in (("wrapped", wrapped), ("whole", [" ".join(wrapped[n : n + 4]) + "." for n in range(25)])):
        (tmp_path / f"{name}.txt").write_text("\n\n".join("\n".join([f"Document {n}", *lines]) for n in range(100)))
        said: list[str] = []
        build_corpus([str(tmp_path / f"{name}.txt")], tmp_path / name, CorpusOptions(**OPTIONS), said.append)
        assert any("as if the text was wrapped" in line for line in said) == (name == "wrapped")
