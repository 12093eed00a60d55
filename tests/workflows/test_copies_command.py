"""`squeezebert copies` and `pairs` as they are typed: groups, scores, thresholds, errors."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import yaml

from squeezebert.export.exporter import export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.files.lock import only_run
from squeezebert.runtime import copies as runtime_copies
from squeezebert.runtime.pairs import read_rule
from squeezebert.runtime.predictor import load
from squeezebert.runtime.ranking import VectorStore
from tiny_checkpoints import save_checkpoint, texts, tiny_model
from typed import refused, run

pytest_plugins = ["exported_folders"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A classifier of pairs whose labels are 0 and 1."""
    folder = tmp_path_factory.mktemp("classifier")
    about = {"task": "single_label", "labels": ["0", "1"], "max_length": 48}
    about["text_columns"] = {"text": "question1", "text_pair": "question2"}
    model = tiny_model(seed=5, num_labels=2, num_hidden_layers=1)
    checkpoint = save_checkpoint(folder / "checkpoint", model, about)
    export_checkpoint(checkpoint, folder / "exported", ExportOptions(threads=1, force=True, precision="fp32"))
    return folder / "exported"


@pytest.fixture(scope="module")
def labelled(encoder, tmp_path_factory):
    """400 pairs, labelled by whether the encoder finds them alike, one in ten wrongly."""
    pairs = list(zip(texts(400, 11), texts(400, 12), strict=True))
    cosines = np.array([float(a @ b) for a, b in (encoder.encode(list(pair)) for pair in pairs)])
    random = np.random.default_rng(0)
    present = (cosines > np.quantile(cosines, 0.6)) ^ (random.random(400) < 0.1)
    rows = [f"{a},{b},{int(is_copy)}\n" for (a, b), is_copy in zip(pairs, present, strict=True)]
    path = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    path.write_text("question1,question2,is_duplicate\n" + "".join(rows))
    return path


def test_groups_are_written_with_where_their_members_are(encoder, tmp_path, capsys):
    posts = texts(12, seed=5)
    near = f"{posts[2]} the"
    table = tmp_path / "posts.csv"
    rows = [*posts, posts[0].title(), near, posts[7]]
    table.write_text("id,text\n" + "".join(f"{i},{text}\n" for i, text in enumerate(rows)))
    vectors = encoder.encode([posts[2], near])
    threshold = round(float(vectors[0] @ vectors[1]) - 0.001, 4)
    told = ("copies", encoder.folder, table, "--precision", "fp32", "--threads", 1, "--threshold", threshold)
    assert run(*told, "--text", "text", "--vectors", tmp_path / "v.npz") == 0
    out, said = capsys.readouterr()
    groups = [json.loads(line) for line in out.splitlines()]
    by_line = {member["line"]: (group, member) for group in groups for member in group["members"]}
    assert by_line[2][0] is by_line[14][0]
    assert by_line[4][0] is by_line[15][0]
    assert by_line[9][0] is by_line[16][0]
    assert by_line[4][0]["copies"] == "near"
    assert [len(group["members"]) for group in groups] == [group["size"] for group in groups]
    assert sorted((group["size"] for group in groups), reverse=True) == [group["size"] for group in groups]
    for group in groups:
        assert group["copies"] == ("exact" if all(member["exact"] for member in group["members"]) else "near")
        assert all(member["similarity"] >= threshold - 1e-4 for member in group["members"])
        assert group["centre"]["line"] in [member["line"] for member in group["members"]]
        assert group["members"][0]["text"] == rows[group["members"][0]["line"] - 2]
    assert f"15 texts, 13 distinct: {len(groups)} groups" in said
    # The vectors are there: nothing is read again, and the answer is the same
    assert run(*told, "--vectors", tmp_path / "v.npz", "--no-with-text", "--output", tmp_path / "again.jsonl") == 0
    again = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    assert all("text" not in member for group in again for member in group["members"])
    assert [group["centre"]["line"] for group in again] == [group["centre"]["line"] for group in groups]
    (tmp_path / "one.txt").write_text("another text\n")
    told = tuple(tmp_path / "one.txt" if one == table else one for one in told)
    assert "--forget: name the file" in refused(capsys, *told, "--forget")
    for forgotten in (13, 0):
        assert run(*told, "--vectors", tmp_path / "v.npz", "--forget") == 0
        assert f"vectors of {forgotten} texts forgotten" in capsys.readouterr().err
    assert len(VectorStore(encoder, tmp_path / "v.npz")) == 1


def test_odd_texts_get_an_answer(encoder, tmp_path, capsys):
    odd = ["", "\u0001\u200b", "🙂 مرحبا", "🙂 مرحبا ", "boat " * 200_000, "boat " * 200_001]
    path = tmp_path / "odd.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in odd))
    assert run("copies", encoder.folder, path, "--threads", 1, "--threshold", 0.99) == 0
    out, said = capsys.readouterr()
    groups = [[member["line"] for member in json.loads(line)["members"]] for line in out.splitlines()]
    assert {tuple(group) for group in groups} == {(3, 4), (5, 6)}
    assert "1 texts are empty" in said
    assert "2 texts were longer than the model's 48 tokens" in said


def test_a_threshold_reaches_what_was_asked_for(encoder, labelled, tmp_path, capsys):
    rule = tmp_path / "rule.yaml"
    told = ("--precision", "fp32", "--threads", 1)
    wanted = ("--least-precision", 0.8, "--certainty", 0.5)
    assert run("pairs", "choose", encoder.folder, labelled, "--output", rule, *wanted, *told) == 0
    said = capsys.readouterr().err
    found = yaml.safe_load(rule.read_text())
    assert found["measure"] == "cosine"
    assert found["model"] == encoder.digest
    assert found["chosen"]["reached"]["precision"][0] >= 0.8
    assert f"copies from cosine {found['threshold']:.3f} on" in said
    assert run("pairs", "score", encoder.folder, labelled, "--rule", rule, *told) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    truth = [line.rsplit(",", 1)[1].strip() == "1" for line in labelled.read_text().splitlines()[1:]]
    held = [line["copies"] for line in lines]
    right = sum(a and b for a, b in zip(held, truth, strict=True))
    assert right / sum(held) == pytest.approx(found["chosen"]["reached"]["precision"][0], abs=1e-4)
    assert right / sum(truth) == pytest.approx(found["chosen"]["reached"]["recall"][0], abs=1e-4)
    # One copy more, and the precision is not reached
    cosines = np.array([line["cosine"] for line in lines])
    lower = np.sort(cosines[(cosines < found["threshold"]) & np.array(truth)])[-1:]
    assert np.array(truth)[cosines >= lower].mean() < 0.8
    assert run("copies", encoder.folder, labelled, "--text", "question1", "--rule", rule, *told) == 0
    assert f"cosine {found['threshold']:.3f} or more" in capsys.readouterr().err
    # It is of this file alone
    line = refused(capsys, "pairs", "score", encoder.folder, labelled, "--rule", rule, "--precision", "int8")
    assert "the threshold was chosen for another model file" in line


def test_a_classifier_of_pairs_scores_by_its_label(classifier, encoder, tmp_path, capsys):
    pairs = [*zip(texts(8, 1), texts(8, 2), strict=True), ("The boat", " the  boat")]
    table = tmp_path / "pairs.jsonl"
    table.write_text("".join(json.dumps({"sentence1": a, "sentence2": b}) + "\n" for a, b in pairs))
    assert run("pairs", "score", classifier, table, "--output", tmp_path / "scores.jsonl") == 0
    assert "9 pairs" in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    expected = [answer.probabilities["1"] for answer in load(classifier, 1).predict(pairs)]
    np.testing.assert_allclose([line["probability"] for line in lines], expected, atol=1e-6)
    assert [line["exact"] for line in lines] == [False] * 8 + [True]
    assert [line["copies"] for line in lines] == [p >= 0.5 for p in expected[:8]] + [True]
    assert run("pairs", "score", classifier, table, "--positive", "0", "--threshold", 1e-9) == 0
    assert "9 copies" in capsys.readouterr().err
    told = ("pairs", "score", classifier, table)
    assert "the model does not know maybe; it knows 0, 1" in refused(capsys, *told, "--positive", "maybe").replace(
        "it; it", "maybe; it"
    )
    (tmp_path / "rule.yaml").write_text("threshold: 0.5\n")
    assert "of cosines, and this model gives probabilities of 1" in refused(
        capsys, *told, "--rule", tmp_path / "rule.yaml"
    )
    assert "copies are found by an encoder" in refused(capsys, "copies", classifier, table)


def test_a_classifiers_threshold_is_chosen_too(classifier, tmp_path, capsys):
    pairs = list(zip(texts(60, 3), texts(60, 4), strict=True))
    scores = np.array([answer.probabilities["1"] for answer in load(classifier, 1).predict(pairs)])
    names = np.where(scores > np.median(scores), "paraphrase", "other")
    rows = [f"{a}\t{b}\t{name}\n" for (a, b), name in zip(pairs, names, strict=True)]
    (tmp_path / "pairs.tsv").write_text("text_a\ttext_b\tlabel\n" + "".join(rows))
    told = ("pairs", "choose", classifier, tmp_path / "pairs.tsv", "--output", tmp_path / "rule.yaml")
    assert run(*told, "--least-precision", 1) == 1
    assert "no probability reaches it; 95% certainty is asked for: ask for less" in capsys.readouterr().err
    assert run(*told, "--least-precision", 1, "--certainty", 0.5) == 0
    rule = read_rule(tmp_path / "rule.yaml")
    assert (rule.measure, rule.positive) == ("probability", "1")
    assert scores[names == "other"].max() < rule.threshold < scores[names == "paraphrase"].min()
    assert "is there already" in refused(capsys, *told)


def test_what_does_not_fit_is_explained(encoder, single, labelled, tmp_path, capsys, monkeypatch):
    told = ("copies", encoder.folder, labelled)
    assert "copies are of single texts" in refused(capsys, *told)
    assert "give one of them" in refused(capsys, *told, "--threshold", 0.8, "--rule", "x.yaml")
    assert "expected a cosine" in refused(capsys, *told, "--threshold", 1.2)
    assert "reads or keeps" in refused(capsys, *told, "--text", "question1", "--output", labelled)
    assert "no folder" in refused(capsys, *told, "--vectors", tmp_path / "none" / "v.npz")
    same = tmp_path / "same.npz"
    assert "reads or keeps" in refused(capsys, *told, "--text", "question1", "--vectors", same, "--output", same)
    rule = tmp_path / "kept.yaml"
    rule.write_text("measure: cosine\nthreshold: 0.8\n")
    assert "reads or keeps" in refused(capsys, *told, "--text", "question1", "--rule", rule, "--output", rule)
    assert "reads or keeps" in refused(
        capsys, "pairs", "score", encoder.folder, labelled, "--rule", rule, "--output", rule, "--overwrite"
    )
    assert rule.read_text().startswith("measure: cosine")
    assert "name a file" in refused(capsys, *told, "--vectors", tmp_path)
    (tmp_path / "v.npz").write_bytes(b"no vectors")
    assert "a damaged store" in refused(capsys, *told, "--vectors", tmp_path / "v.npz")
    assert (tmp_path / "v.npz").read_bytes() == b"no vectors"
    assert "reads single texts" in refused(capsys, "pairs", "score", single.output, labelled)
    one = tmp_path / "one.csv"
    one.write_text("text\na b\n")
    assert "name the second column, --text-pair" in refused(capsys, "pairs", "score", encoder.folder, one)
    choose = ("pairs", "choose", encoder.folder, labelled, "--output", tmp_path / "rule.yaml")
    assert "--least-precision 0.0" in refused(capsys, *choose, "--least-precision", 0)
    (tmp_path / "wrong.csv").write_text(
        "question1,question2,label\nthe boat,the boat boat,0\nlate music,a river is,1\n"
    )
    wrong = ("pairs", "choose", encoder.folder, tmp_path / "wrong.csv", *choose[4:])
    assert "no cosine reaches it" in refused(capsys, *wrong, "--least-precision", 1)
    assert "say which label means" in refused(capsys, *choose, "--positive", "maybe")
    assert not (tmp_path / "rule.yaml").exists()
    monkeypatch.setitem(sys.modules, "faiss", None)
    runtime_copies.import_faiss.cache_clear()
    assert "pip install 'squeezebert[copies]'" in refused(capsys, *told, "--text", "question1")
    monkeypatch.undo()
    runtime_copies.import_faiss.cache_clear()


@pytest.mark.parametrize("threshold", [2, -1])
def test_a_cosine_that_there_is_not_is_refused(encoder, labelled, tmp_path, capsys, threshold):
    told = ("pairs", "score", encoder.folder, labelled)
    expected = f"{threshold}: expected a cosine above -1, to 1"
    assert f"--threshold {expected}" in refused(capsys, *told, "--threshold", threshold)
    rule = tmp_path / "rule.yaml"
    rule.write_text(f"threshold: {threshold}\n")
    assert f"{rule}: threshold {expected}" in refused(capsys, *told, "--rule", rule)
    sweep = ("copies", encoder.folder, labelled, "--text", "question1", "--rule", rule)
    assert f"{rule}: threshold {expected}" in refused(capsys, *sweep)


def test_a_probability_that_there_is_not_is_refused(classifier, labelled, capsys):
    told = ("pairs", "score", classifier, labelled, "--threshold")
    for threshold in ("0", "1.5"):
        expected = f"--threshold {threshold}: expected a probability above 0, to 1"
        assert expected in refused(capsys, *told, threshold)


def test_pairs_that_are_all_exact_copies_choose_nothing(encoder, tmp_path, capsys):
    pairs = tmp_path / "exact.csv"
    pairs.write_text("sentence1,sentence2,label\na boat,a boat,1\nA boat,a boat,1\n")
    said = refused(capsys, "pairs", "choose", encoder.folder, pairs, "--output", tmp_path / "rule.yaml")
    assert "all 2 pairs are exact copies" in said


def test_one_run_at_a_time_keeps_vectors(encoder, tmp_path, capsys):
    table = tmp_path / "t.txt"
    table.write_text("a boat\nthe river\n")
    told = ("copies", encoder.folder, table, "--vectors", tmp_path / "v.npz")
    with only_run(tmp_path / "v.npz"):
        assert "another run is writing it" in refused(capsys, *told)
    assert run(*told) == 0
