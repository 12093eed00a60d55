"""Corpora: what is text, how sequences are packed, when a tokenised corpus is used again, and batches of them."""

from __future__ import annotations

import gzip
import json
import random

import numpy as np
import pytest
import transformers

from squeezebert.data.corpus import MANIFEST, Corpus, read_texts, tokenise_corpus
from squeezebert.data.packing import SHORTEST, Batches, split_sentences
from squeezebert.files.errors import FolderError, OptionError, TableError

WORDS = ("the", "match", "goal", "team", "coach", "bank", "market", "share", "film", "star", "song", "vote", "law")
CLS, SEP = 2, 3


def sentence(generator: random.Random, most: int = 12) -> str:
    return " ".join(generator.choices(WORDS, k=generator.randint(1, most))) + "."


def write_documents(path, count: int, seed: int = 0) -> list[str]:
    """A file of documents of a few paragraphs; returns the text of each."""
    generator = random.Random(seed)
    documents = []
    for _ in range(count):
        paragraphs = [
            " ".join(sentence(generator) for _ in range(generator.randint(1, 4)))
            for _ in range(generator.randint(1, 5))
        ]
        documents.append(paragraphs)
    path.write_text("\n\n".join("\n".join(paragraphs) for paragraphs in documents) + "\n")
    return [" ".join(paragraphs) for paragraphs in documents]


@pytest.fixture
def corpus_file(tmp_path):
    path = tmp_path / "text.txt"
    write_documents(path, 40)
    return path


def test_paragraphs_and_documents_of_a_folder(tmp_path):
    (tmp_path / "b.txt").write_text("third\n")
    (tmp_path / "a.txt").write_text("\nfirst\nalso  first \n\n \nsecond\n")
    (tmp_path / "ATTRIBUTION.txt").write_text("by nobody\n")
    (tmp_path / "ATTRIBUTION.tsv").write_text("by\tnobody\n")
    (tmp_path / "notes.md").write_text("no text\n")
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"fourth"))
    found = [(item.text, item.document, item.running) for item in read_texts(tmp_path)]
    assert found == [
        ("first", 0, True),
        ("also  first", 0, True),
        ("second", 1, True),
        ("third", 2, True),
        ("fourth", 3, True),
    ]
    both = list(read_texts([tmp_path / "b.txt", tmp_path / "a.txt"]))
    assert [(item.text, item.document) for item in both] == [
        ("third", 0),
        ("first", 1),
        ("also  first", 1),
        ("second", 2),
    ]


def test_texts_and_pairs_of_tables(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("label,message\n1,good\n0,\n1,bad\n")
    assert [(item.text, item.text_pair, item.document) for item in read_texts(table)] == [
        ("good", None, 0),
        ("bad", None, 2),
    ]
    assert [item.text for item in read_texts(table, text="label")] == ["1", "0", "1"]
    pairs = tmp_path / "p.jsonl"
    pairs.write_text(json.dumps({"premise": "good", "hypothesis": "bad", "label": "x"}))
    assert [(item.text, item.text_pair, item.running) for item in read_texts(pairs)] == [("good", "bad", False)]


def test_folders_of_books_are_no_table_with_a_book_a_row(tmp_path):
    for place, length in (("spam/1.txt", 10), ("mail/1.txt", 20)):
        (tmp_path / "labels" / place).parent.mkdir(parents=True)
        (tmp_path / "labels" / place).write_text("words\n" * length)
        (tmp_path / "corpus" / place).parent.mkdir(parents=True)
        (tmp_path / "corpus" / place).write_text("words\n" * length * 2000)
    assert len(list(read_texts(tmp_path / "labels"))) == 2
    with pytest.raises(TableError, match=r"corpus: its sub-folders hold 2 \.txt files of 180 kB each.*mail .*spam$"):
        list(read_texts(tmp_path / "corpus"))
    named = [tmp_path / "corpus" / name for name in ("mail", "spam")]
    assert len(list(read_texts(named))) == 60_000


def test_what_is_wrong_with_a_source_is_named(tmp_path):
    with pytest.raises(TableError, match=r"nowhere\.txt: no such file or folder"):
        list(read_texts(tmp_path / "nowhere.txt"))
    with pytest.raises(TableError, match="nowhere"):
        list(read_texts(tmp_path / "nowhere"))
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    with pytest.raises(TableError, match=r"empty\.txt: it holds no text"):
        list(read_texts(empty))
    with pytest.raises(TableError, match=r"blank\.csv: it holds no text"):
        blank = tmp_path / "blank.csv"
        blank.write_text('text\n" "\n')
        list(read_texts(blank))
    latin = tmp_path / "latin.txt"
    latin.write_bytes("fine\nna\xefve\n".encode("latin-1"))
    with pytest.raises(TableError, match=r"latin\.txt:2: badly encoded.*--encoding latin-1"):
        list(read_texts(latin))
    assert [item.text for item in read_texts(latin, encoding="latin-1")] == ["fine", "na\xefve"]
    with pytest.raises(OptionError, match="--encoding klingon"):
        list(read_texts(latin, encoding="klingon"))
    unnamed = tmp_path / "unnamed.csv"
    unnamed.write_text("foo,bar\na b,c d\n")
    with pytest.raises(TableError, match="name it with --column"):  # --text names the table
        list(read_texts(unnamed))


def test_sentences_lose_nothing():
    text = 'The U.S. price is 3.5! "Really?" he said (yes.) and left. End'
    parts = split_sentences(text)
    assert "".join(parts) == text
    assert parts == ["The U.S. price is 3.5! ", '"Really?" he said (yes.) and left. ', "End"]
    assert split_sentences("") == []
    assert split_sentences("Dr. Smith met J. K. Rowling in St. Louis. No. 5 is alive.") == [
        "Dr. Smith met J. K. Rowling in St. Louis. ",
        "No. 5 is alive.",
    ]
    assert split_sentences("the team won. the bank lost!") == ["the team won. ", "the bank lost!"]
    assert split_sentences("彼は来た。私は行った。") == ["彼は来た。", "私は行った。"]


def inner_ids(corpus: Corpus) -> list[list[int]]:
    rows = [corpus[number].tolist() for number in range(len(corpus))]
    assert all(row[0] == CLS and row[-1] == SEP for row in rows)
    return [row[1:-1] for row in rows]


@pytest.mark.parametrize("max_length", [8, 24, 128])
def test_packing_keeps_every_token_in_order_and_documents_apart(max_length, tiny_tokenizer, tmp_path):
    documents = write_documents(tmp_path / "text.txt", 30)
    corpus = tokenise_corpus(tmp_path / "text.txt", tiny_tokenizer, tmp_path / "c", max_length=max_length)
    assert corpus.lengths.max() <= max_length
    sequences = iter(inner_ids(corpus))
    for document in documents:
        expected = tiny_tokenizer(document, add_special_tokens=False)["input_ids"]
        found: list[int] = []
        while len(found) < len(expected):
            found += next(sequences)
        assert found == expected
    assert next(sequences, None) is None
    assert corpus.ids.dtype == np.uint16
    assert corpus.firsts is None


def test_lengths_are_mixed_and_sentences_whole(tiny_tokenizer, tmp_path):
    generator = random.Random(1)
    (tmp_path / "text.txt").write_text(" ".join(sentence(generator) for _ in range(4000)))
    mixed = tokenise_corpus(tmp_path / "text.txt", tiny_tokenizer, tmp_path / "mixed", max_length=100)
    full = tokenise_corpus(tmp_path / "text.txt", tiny_tokenizer, tmp_path / "full", max_length=100, short_share=0)
    stop = tiny_tokenizer.convert_tokens_to_ids(".")
    assert all(row[-1] == stop for row in inner_ids(mixed))
    assert (full.lengths[:-1] > 100 - 14).all()  # what is left over is shorter than one sentence
    short = (mixed.lengths <= 100 - 14).mean()
    assert 0.2 < short < 0.4
    assert mixed.lengths.min() < 2 * SHORTEST


def test_a_seed_gives_the_same_sequences_and_another_others(corpus_file, tiny_tokenizer, tmp_path):
    made = [
        tokenise_corpus(corpus_file, tiny_tokenizer, tmp_path / name, max_length=32, seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert np.array_equal(made[0].offsets, made[1].offsets)
    assert made[0].digest == made[1].digest != made[2].digest
    assert not np.array_equal(made[0].offsets, made[2].offsets)


def test_pairs_have_token_types_and_long_ones_are_cut(tiny_tokenizer, tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_text("sentence1,sentence2\ngood law,bad\n" + f"{'team ' * 40},vote\n")
    corpus = tokenise_corpus(table, tiny_tokenizer, tmp_path / "c", max_length=16)
    expected = tiny_tokenizer(
        ["good law", "team " * 40], ["bad", "vote"], truncation="longest_first", max_length=16, padding=True
    )
    batch = corpus.batch([0, 1])
    assert {name: array.tolist() for name, array in batch.items()} == dict(expected)
    assert batch["token_type_ids"].sum() == 4
    # rows without a second text have one type
    table.write_text("sentence1\ngood law\n")
    assert (
        tokenise_corpus(table, tiny_tokenizer, tmp_path / "d", max_length=16).batch([0])["token_type_ids"].sum() == 0
    )


def test_a_tokenised_corpus_is_used_again_and_a_changed_one_made_anew(corpus_file, tiny_tokenizer, tmp_path):
    folder = tmp_path / "cache" / "c"
    lines: list[str] = []

    def tokenise(**changes):
        lines.clear()
        given = {"tokenizer": tiny_tokenizer, "max_length": 32, **changes}
        return tokenise_corpus(corpus_file, folder=folder, report=lines.append, **given)

    first = tokenise()
    assert any("a second" in line for line in lines)
    again = tokenise()
    assert lines == [f"{len(first)} sequences of {first.tokens} tokens are there already: {folder}"]
    assert again.digest == first.digest
    other = transformers.BertTokenizer(vocab={**tiny_tokenizer.get_vocab(), "new": len(tiny_tokenizer)})
    for changes in ({"max_length": 16}, {"seed": 5}, {"short_share": 0.5}, {"tokenizer": other}):
        made = tokenise(**changes)
        assert not any("already" in line for line in lines), changes
        assert made.digest != first.digest
    tokenise()
    corpus_file.write_text(corpus_file.read_text() + "more of the match\n")
    assert tokenise().tokens > first.tokens
    assert [path.name for path in folder.parent.iterdir()] == ["c"]
    kept = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer")
    assert kept.get_vocab() == tiny_tokenizer.get_vocab()


def test_a_damaged_corpus_is_named_and_made_anew(corpus_file, tiny_tokenizer, tmp_path):
    folder = tmp_path / "c"
    first = tokenise_corpus(corpus_file, tiny_tokenizer, folder, max_length=32)
    ids = folder / "ids.npy"
    ids.write_bytes(ids.read_bytes()[:-20])
    with pytest.raises(FolderError, match="damaged"):
        Corpus.open(folder)
    assert tokenise_corpus(corpus_file, tiny_tokenizer, folder, max_length=32).tokens == first.tokens
    (folder / "offsets.npy").unlink()
    with pytest.raises(FolderError, match=r"offsets\.npy is missing"):
        Corpus.open(folder)
    with pytest.raises(FolderError, match="no tokenised corpus there"):
        Corpus.open(tmp_path / "nowhere")


def test_a_folder_of_something_else_is_left_alone(corpus_file, tiny_tokenizer, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("precious")
    with pytest.raises(FolderError, match="not a tokenised corpus"):
        tokenise_corpus(corpus_file, tiny_tokenizer, other)
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]


def test_a_tokenizer_of_another_model_is_refused(corpus_file, tiny_tokenizer, tmp_path):
    folder = tmp_path / "c"
    with pytest.raises(OptionError, match=r"embeddings for 40 tokens: tokenizer and model do not belong together"):
        tokenise_corpus(corpus_file, tiny_tokenizer, folder, vocab_size=40)
    assert not folder.exists()
    corpus = tokenise_corpus(corpus_file, tiny_tokenizer, folder, vocab_size=len(tiny_tokenizer))
    assert json.loads((folder / MANIFEST).read_text())["largest_id"] == corpus.ids.max()
    with pytest.raises(OptionError, match="do not belong together"):
        tokenise_corpus(corpus_file, tiny_tokenizer, folder, vocab_size=40)  # used again, and checked again


@pytest.mark.parametrize("numbers", [{"max_length": 7}, {"short_share": 1.5}])
def test_impossible_numbers_are_named(numbers, corpus_file, tiny_tokenizer, tmp_path):
    with pytest.raises(OptionError, match=next(iter(numbers)).replace("_", ".")):
        tokenise_corpus(corpus_file, tiny_tokenizer, tmp_path / "c", **numbers)


def test_batches_take_every_sequence_once_a_pass_within_the_budget():
    lengths = np.random.default_rng(0).integers(4, 60, 3000)
    sequences = np.arange(100, 3000)
    batches = Batches(lengths, sequences, 240, seed=7)
    one_pass = batches.whole_pass()
    assert sorted(np.concatenate(one_pass)) == sequences.tolist()
    padded = [len(batch) * lengths[batch].max() for batch in one_pass]
    assert max(padded) <= 240
    text = sum(lengths[batch].sum() for batch in one_pass)
    assert text / sum(padded) > 0.95
    assert np.median(padded) > 200
    second = [batches[number] for number in range(len(one_pass), 2 * len(one_pass) - 5)]
    assert len(np.unique(np.concatenate(second))) == sum(map(len, second))
    assert not np.array_equal(second[0], one_pass[0])


def test_a_batch_is_the_same_whichever_was_asked_for_before():
    lengths = np.random.default_rng(0).integers(4, 60, 200)
    batches, others = (Batches(lengths, np.arange(200), 100, seed=3) for _ in range(2))
    row = [batches[number] for number in range(400)]
    for number in (399, 0, 250, 17):
        assert np.array_equal(others[number], row[number])
    different = Batches(lengths, np.arange(200), 100, seed=4)
    assert not all(np.array_equal(different[number], row[number]) for number in range(10))


def test_a_sequence_over_the_budget_is_a_batch_of_its_own():
    batches = Batches(np.array([50, 5, 5, 60]), np.arange(4), 20, seed=0).whole_pass()
    assert sorted(map(sorted, batches)) == [[0], [1, 2], [3]]


def test_batches_of_nothing_are_an_error_and_no_endless_search():
    for asked in (lambda batches: batches[0], Batches.whole_pass):
        with pytest.raises(ValueError, match="no sequences to make batches of"):
            asked(Batches(np.array([50, 5]), np.arange(0), 20, seed=0))
