"""Rows, segments in order and swapped, and masks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pretraining_text import small_pretraining_corpus
from squeezebert.data.options import CorpusOptions
from squeezebert.data.pretraining.batches import IGNORED, Masking, PretrainingBatches
from squeezebert.data.pretraining.building import build_corpus
from squeezebert.data.pretraining.rows import SHORTEST_ROW, PretrainingCorpus, Rows
from squeezebert.files.errors import OptionError


@pytest.fixture(scope="module")
def corpus(tiny_tokenizer, tmp_path_factory):
    return small_pretraining_corpus(tmp_path_factory.mktemp("pretraining"), tiny_tokenizer)


@pytest.fixture(scope="module")
def rows(corpus):
    return Rows.cut(corpus.split("train"), 45)


def batches(rows, tokenizer, *, share=0.15, whole=False, seed=0, size=8, **changes):
    return PretrainingBatches(rows, size, tokenizer, Masking.of(tokenizer, share, whole), seed, **changes)


def test_rows_are_whole_sentences_as_many_as_fit(rows):
    kept = 0
    for number, shard in enumerate(rows.shards):
        ends = shard.ends + np.repeat(shard.starts[:-1], np.diff(shard.firsts))
        for document, (begin, end) in enumerate(pairwise(shard.starts)):
            within = ends[shard.firsts[document] : shard.firsts[document + 1]].tolist()
            backwards = document % 2 == 1
            if backwards:  # the same in a mirror at the document's end
                within = [int(end) - place for place in reversed([int(begin), *within[:-1]])]
            position, wanted, inside = (0 if backwards else int(begin)), [], False
            while position < (end - begin if backwards else end):
                fits = [place for place in within if position < place <= position + 45]
                stop = fits[-1] if fits else min(position + 45, next(place for place in within if place > position))
                if stop - position >= SHORTEST_ROW:
                    start = int(end) - stop if backwards else position
                    wanted.append((start, stop - position, 0 if inside else len(fits)))
                position, inside = stop, not fits and stop not in within
            wanted.sort()
            mine = (rows.shard == number) & (rows.start >= begin) & (rows.start < end)
            found = zip(rows.start[mine], rows.length[mine], rows.sentences[mine], strict=True)
            assert [(int(s), int(n), int(c)) for s, n, c in found] == wanted
            kept += sum(length for _, length, _ in wanted)
    assert rows.total == kept


def test_a_sentence_that_no_row_holds_gives_pieces_without_an_order(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save_pretrained(tmp_path / "vocabulary")
    long = [f"document {n} " + "the team won a cup " * 40 + "." for n in range(80)]
    (tmp_path / "text.txt").write_text("\n\n".join(long))
    told = CorpusOptions(vocabulary=str(tmp_path / "vocabulary"), workers=1, held_out=0.1)
    build_corpus([str(tmp_path / "text.txt")], tmp_path / "corpus", told)
    rows = Rows.cut(PretrainingCorpus.open(tmp_path / "corpus").split("train"), 45)
    assert (rows.sentences == 0).all()
    batch = batches(rows, tiny_tokenizer)[0]
    assert (batch["sentence_order_label"] == IGNORED).all()


def test_order_cannot_be_told_from_how_segments_end(rows, tiny_tokenizer):
    made = batches(rows, tiny_tokenizer, share=0.01)
    right = total = 0
    stop = tiny_tokenizer.convert_tokens_to_ids(".")
    for number in range(made.of_pass):
        batch = made[number]
        ids = np.where(batch["labels"] == IGNORED, batch["input_ids"], batch["labels"])
        for row, order in zip(ids, batch["sentence_order_label"], strict=True):
            if order == IGNORED:
                continue
            cut = np.flatnonzero(row == tiny_tokenizer.sep_token_id)[0]
            right += (row[cut - 1] != stop) == bool(order)
            total += 1
    assert total > 200
    assert 0.35 < right / total < 0.65


def test_order_cannot_be_told_from_the_lengths_of_segments(tiny_tokenizer, tmp_path):
    """Sentences of all lengths, independent of one another, so that there is nothing to tell their order by."""
    generator = np.random.default_rng(0)
    words = ["team", "cup", "bank", "share", "trade", "film", "star", "song", "minister", "law"]
    documents = []
    for number in range(1500):
        lengths = generator.geometric(1 / 12, generator.integers(4, 30))
        text = " ".join(" ".join(generator.choice(words, length)).capitalize() + "." for length in lengths)
        documents.append(f"Document {number}. {text}")
    (tmp_path / "text.txt").write_text("\n\n".join(documents))
    tiny_tokenizer.save_pretrained(tmp_path / "vocabulary")
    told = CorpusOptions(vocabulary=str(tmp_path / "vocabulary"), workers=1, held_out=0.02)
    build_corpus([str(tmp_path / "text.txt")], tmp_path / "corpus", told)
    made = batches(Rows.cut(PretrainingCorpus.open(tmp_path / "corpus").split("train"), 61), tiny_tokenizer)
    longer = []
    for number in range(made.of_pass):
        batch = made[number]
        second = (batch["token_type_ids"] * batch["attention_mask"]).sum(1)
        first = batch["attention_mask"].sum(1) - second - 1
        asked = (batch["sentence_order_label"] != IGNORED) & (first != second)
        longer += ((first < second) == batch["sentence_order_label"])[asked].tolist()
    assert len(longer) > 3000
    assert 0.47 < np.mean(longer) < 0.53  # 0.55 and more where all rows are packed from one side


def test_pieces_behind_a_cut_are_hidden_as_whole_words_are(rows, tiny_tokenizer):
    masking = Masking.of(tiny_tokenizer, 0.15, True)
    piece = int(np.flatnonzero(~masking.begins_word)[0])
    word = int(next(i for i in masking.ordinary if masking.begins_word[i]))
    ids = np.tile([tiny_tokenizer.cls_token_id, piece, piece, word], (4000, 1))
    may = np.tile([False, True, True, True], (4000, 1))
    _, labels = masking.hide(ids, may, np.random.default_rng(0))
    asked = labels != IGNORED
    assert (asked[:, 1] == asked[:, 2]).all()
    assert asked[:, 1].mean() == pytest.approx(asked[:, 3].mean(), abs=0.05)


def test_a_batch_can_be_put_together_again(rows, tiny_tokenizer):
    made = batches(rows, tiny_tokenizer)
    swaps = asked = 0
    for number in range(made.of_pass):
        batch, numbers = made[number], made.numbers(number)
        ids = np.where(batch["labels"] == IGNORED, batch["input_ids"], batch["labels"])
        for place, row in enumerate(numbers):
            length = batch["attention_mask"][place].sum()
            whole = ids[place, :length]
            assert whole[0] == tiny_tokenizer.cls_token_id
            assert (ids[place, length:] == tiny_tokenizer.pad_token_id).all()
            cut, end = np.flatnonzero(whole == tiny_tokenizer.sep_token_id)
            assert end == length - 1
            first, second = whole[1:cut], whole[cut + 1 : end]
            assert min(len(first), len(second)) >= 4
            assert batch["token_type_ids"][place].tolist() == [0] * (cut + 1) + [1] * (end - cut) + [0] * (
                ids.shape[1] - length
            )
            swapped = batch["sentence_order_label"][place] == 1
            swaps += swapped
            asked += batch["sentence_order_label"][place] != IGNORED
            parts = (second, first) if swapped else (first, second)
            assert np.concatenate(parts).tolist() == rows.ids(row).tolist()
            within = rows.boundaries(row, 4)
            assert (batch["sentence_order_label"][place] == IGNORED) == (len(within) == 0)
            if len(within):
                assert len(parts[0]) in within
    assert 0.4 < swaps / asked < 0.6


def test_each_pass_takes_every_row_at_most_once_in_another_order(rows, tiny_tokenizer):
    made = batches(rows, tiny_tokenizer)
    passes = [[made.numbers(number) for number in range(first, first + made.of_pass)] for first in (0, made.of_pass)]
    for one in passes:
        flat = np.concatenate(one)
        assert len(set(flat.tolist())) == len(flat) > len(rows) - 8
    assert np.concatenate(passes[0]).tolist() != np.concatenate(passes[1]).tolist()


def test_batches_depend_on_seed_and_number_alone(rows, tiny_tokenizer):
    one, other = batches(rows, tiny_tokenizer), batches(rows, tiny_tokenizer)
    made = [one.of_pass + 3, 2, 0]
    later = {number: other[number] for number in made}
    for number in reversed(made):
        assert all((one[number][name] == later[number][name]).all() for name in later[number])
    differs = batches(rows, tiny_tokenizer, seed=1)[0]
    assert any(differs[name].shape != one[0][name].shape or (differs[name] != one[0][name]).any() for name in differs)
    masks = [one[number]["labels"] for number in (0, 1)]
    assert masks[0].shape != masks[1].shape or (masks[0] != masks[1]).any()


def test_padding_is_what_the_batches_hold(rows, tiny_tokenizer):
    made = batches(rows, tiny_tokenizer)
    masks = [made[number]["attention_mask"] for number in range(made.of_pass)]
    assert made.padding() == pytest.approx(1 - sum(m.sum() for m in masks) / sum(m.size for m in masks))


def test_masking_hides_as_told(tiny_tokenizer):
    masking = Masking.of(tiny_tokenizer, 0.15, False)
    random = np.random.default_rng(0)
    ids = random.choice(masking.ordinary, (400, 100))
    may = random.random(ids.shape) < 0.9
    hidden, labels = masking.hide(ids, may, random)
    asked = labels != IGNORED
    assert not (asked & ~may).any()
    assert (labels[asked] == ids[asked]).all()
    assert (hidden[~asked] == ids[~asked]).all()
    assert asked.sum() / may.sum() == pytest.approx(0.15, abs=0.01)
    assert (hidden[asked] == masking.mask).mean() == pytest.approx(0.8, abs=0.02)
    # A tenth stays, and of the tenth that is drawn a few are drawn as they were
    assert (hidden[asked] == ids[asked]).mean() == pytest.approx(0.1, abs=0.02)
    special = set(tiny_tokenizer.all_special_ids) - {masking.mask}
    assert not special & set(hidden[asked].tolist())


def test_whole_words_are_hidden_together(tiny_tokenizer):
    masking = Masking.of(tiny_tokenizer, 0.3, True)
    ids = np.array([tiny_tokenizer("zzz team xyz the abcabc won qq")["input_ids"]] * 300)
    may = ~np.isin(ids, tiny_tokenizer.all_special_ids)
    _, labels = masking.hide(ids, may, np.random.default_rng(0))
    asked = labels != IGNORED
    begins = masking.begins_word[ids[0]]
    assert not begins.all()
    words = np.cumsum(begins)
    for word in set(words[may[0]].tolist()):
        pieces = asked[:, (words == word) & may[0]]
        assert (pieces.all(axis=1) == pieces.any(axis=1)).all()
    assert asked[may].mean() == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("whole", [False, True])
def test_every_row_asks_for_a_word(rows, tiny_tokenizer, whole):
    made = batches(rows, tiny_tokenizer, share=0.001, whole=whole)
    for number in range(made.of_pass):
        assert ((made[number]["labels"] != IGNORED).sum(axis=1) >= 1).all()


def test_a_vocabulary_that_marks_no_words_cannot_hide_whole_ones():
    class Other:
        mask_token_id = 4
        all_special_ids = (0, 1, 2, 3, 4)

        def __len__(self):
            return 8

        def convert_ids_to_tokens(self, ids):
            return [f"word{number}" for number in ids]

    with pytest.raises(OptionError, match="--whole-words: the vocabulary is not WordPiece"):
        Masking.of(Other(), 0.15, True)


def test_a_corpus_smaller_than_a_batch_is_refused(rows, tiny_tokenizer):
    with pytest.raises(OptionError, match=r"less than a batch of 100000.*--micro-batch"):
        batches(rows, tiny_tokenizer, size=100_000)


def test_held_out_batches_are_the_same_in_every_pass(rows, tiny_tokenizer):
    made = batches(rows, tiny_tokenizer, varies=False)
    here = dict(made[2])
    again = batches(rows, tiny_tokenizer, varies=False)[2]
    assert all((here[name] == again[name]).all() for name in here)
