"""`squeezebert policy` and `moderate` as they are typed: what thresholds reach, audit lines, errors."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import yaml

from squeezebert.runtime.predictor import load
from tiny_checkpoints import texts
from typed import refused, run

pytest_plugins = ["exported_folders"]


@pytest.fixture(scope="module")
def rows(single, tmp_path_factory):
    """A table of 300 posts labelled by the model itself, one in eight wrongly."""
    model = load(single.output, threads=1)
    posts = texts(300, seed=6)
    labels = [answer.label for answer in model.predict(posts)]
    random = np.random.default_rng(0)
    labels = [str(random.choice(model.labels)) if random.random() < 0.125 else label for label in labels]
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    path.write_text("text,label\n" + "".join(f"{a},{b}\n" for a, b in zip(posts, labels, strict=True)))
    return path


def test_thresholds_reach_what_was_asked_for(single, rows, tmp_path, capsys):
    policy = tmp_path / "p.yaml"
    told = ("policy", single.output, rows, "--output", policy, "--labels", "busy", "--threads", 1)
    assert run(*told, "--block-precision", 0.9, "--review-recall", 0.9, "--certainty", 0.5) == 0
    said = capsys.readouterr().err
    found = yaml.safe_load(policy.read_text())
    rule, reached = found["labels"]["busy"], found["chosen"]["reached"]["busy"]
    assert 0 < rule["review"] <= rule["block"] < 1
    assert reached["block"]["precision"][0] >= 0.9
    assert reached["review"]["recall"][0] >= 0.9
    assert 300 > reached["review"]["posts"] >= reached["block"]["posts"] > 20
    assert f"blocked from {rule['block']:.3f} on: {reached['block']['posts']} posts" in said
    # What the audit then counts is what was promised
    assert run("moderate", single.output, rows, "--policy", policy, "--text", "text", "--output", tmp_path / "a") == 0
    assert f"{reached['block']['posts']} blocked" in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "a").read_text().splitlines()]
    outcomes = [line["outcome"] for line in lines]
    held = reached["review"]["posts"]
    assert (len(lines), outcomes.count("review") + outcomes.count("block")) == (300, held)
    assert lines[0].keys() >= {"time", "source", "line", "reasons", "text_sha256", "policy_sha256", "model_sha256"}
    assert "text" not in lines[0]
    assert (lines[0]["line"], lines[299]["line"]) == (2, 301)


def test_sentences_by_themselves_are_left_out_where_they_cost_much(single, tmp_path, capsys):
    # A model that is right about whole posts, and of which some sentence says otherwise
    model = load(single.output, threads=1)
    parts = [f"{text}." for text in texts(600, seed=8) if len(text.split()) < 8]
    posts = [" ".join(parts[i : i + 4]) for i in range(0, len(parts) - 3, 4)]
    table = tmp_path / "rows.csv"
    table.write_text("text,label\n" + "".join(f"{post},{model.predict(post).label}\n" for post in posts))
    told = ("policy", single.output, table, "--labels", "busy", "--threads", 1, "--certainty", 0.5)
    found = {}
    for name, more in (("auto", ()), ("never", ("--no-sentences",)), ("always", ("--always-sentences",))):
        assert run(*told, "--output", tmp_path / name, *more) == 0
        said = capsys.readouterr().err
        found[name] = yaml.safe_load((tmp_path / name).read_text())
        assert ("--always-sentences" in said) == (name == "auto")
    share = {name: policy["chosen"]["reached"]["busy"]["review"]["harmless"] for name, policy in found.items()}
    assert share["always"] > 2 * share["never"] and share["auto"] == share["never"]
    assert [policy["sentences"] for policy in found.values()] == [False, False, True]
    assert found["auto"]["labels"] == found["never"]["labels"] != found["always"]["labels"]
    # And the policy that is written holds back what was said
    assert run("moderate", single.output, table, "--policy", tmp_path / "auto", "--output", tmp_path / "audit") == 0
    outcomes = [json.loads(line)["outcome"] for line in (tmp_path / "audit").read_text().splitlines()]
    assert len(outcomes) - outcomes.count("allow") == found["auto"]["chosen"]["reached"]["busy"]["review"]["posts"]
    told = (*told, "--output", tmp_path / "x", "--no-sentences", "--always-sentences")
    assert "leave one of them out" in refused(capsys, *told)


def test_a_policy_for_longer_posts_is_stricter(single, rows, tmp_path, capsys):
    told = ("policy", single.output, rows, "--labels", "calm", "--threads", 1, "--certainty", 0.5)
    found = []
    for name, more in (("once", []), ("ten", ["--rows-a-post", 10])):
        assert run(*told, "--output", tmp_path / name, "--block-precision", 0.5, *more) == 0
        found.append(yaml.safe_load((tmp_path / name).read_text()))
    once, ten = (one["labels"]["calm"] for one in found)
    assert ten["review"] > once["review"]
    assert found[1]["chosen"]["wanted"]["rows_a_post"] == 10
    assert "of such as are 10 times as long" in capsys.readouterr().err


def test_a_precision_that_cannot_be_reached_is_said(single, tmp_path, capsys):
    posts = tmp_path / "posts.csv"
    posts.write_text("text,label\nthe boat,busy\nthe boat,calm\nthe boat,calm\n")
    told = ("policy", single.output, posts, "--output", tmp_path / "p.yaml", "--labels", "busy")
    assert run(*told) == 0
    said = capsys.readouterr().err
    assert "no threshold reaches a precision of 0.95: nothing is blocked; 95% certainty is asked for" in said
    assert "give more rows (52 without an error at the least)" in said
    assert "warning: 1 rows with the label are too few" in said
    assert run(*told, "--certainty", 0.5, "--overwrite") == 0
    assert "nothing is blocked; these rows have no such threshold" in capsys.readouterr().err
    assert set(yaml.safe_load((tmp_path / "p.yaml").read_text())["labels"]["busy"]) == {"review"}


def test_posts_come_as_lines_and_may_be_kept(single, tmp_path, capsys):
    (tmp_path / "p.yaml").write_text("labels: {busy: {review: 0.0}}\n")
    (tmp_path / "posts.txt").write_bytes("the boat\n\n🙂 مرحبا\n".encode())
    told = ("moderate", single.output, tmp_path / "posts.txt", "--policy", tmp_path / "p.yaml")
    assert run(*told, "--with-text") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines][-1] == "🙂 مرحبا"
    assert [line["reasons"][0]["words"] for line in lines] == [line["text"] for line in lines]
    assert run(*told) == 0
    assert all("words" not in json.loads(line)["reasons"][0] for line in capsys.readouterr().out.splitlines())
    assert {line["outcome"] for line in lines} == {"review"}


ODD = "the b\0oat \x07\x1b[2J"
CSV = f'text,other\nthe boat,a\n"{ODD}",b\nthe river,c\n'.encode()


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("posts.csv", CSV, ["the boat", ODD, "the river"]),
        ("posts.tsv", CSV.replace(b",", b"\t").replace(b'"', b""), ["the boat", ODD, "the river"]),
        ("posts.txt", f"{ODD}\n\0\n".encode(), [ODD, "\0"]),
        (
            "posts.jsonl",
            b'{"text": "bad\\ud800"}\n{"text": "a\0b\x07"}\n{"text": ""}\n',
            ["bad\ud800", "a\0b\x07", ""],
        ),
        ("posts.json", b'[{"text": "bad\\ud800\\u0000"}, {"text": "a\0b"}]', ["bad\ud800\0", "a\0b"]),
        ("-", b'{"text": "bad\\ud800"}\n{"text": "a\0b"}\n', ["bad\ud800", "a\0b"]),
        ("-", b"a\0b\n\x07\n", ["a\0b", "\x07"]),
    ],
)
@pytest.mark.parametrize("skip", [False, True])
def test_a_post_of_any_characters_is_decided(single, tmp_path, capsys, monkeypatch, name, content, texts, skip):
    policy = tmp_path / "p.yaml"
    policy.write_text("labels: {busy: {review: 0.0}}\n")
    if name == "-":
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    else:
        (tmp_path / name).write_bytes(content)
        name = tmp_path / name
    told = ("moderate", single.output, name, "--policy", policy, "--with-text")
    assert run(*told, *(["--skip-bad-rows"] if skip else [])) == 0
    out, said = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["text"] for line in lines] == texts
    assert all(line["outcome"] == "review" and "busy" in line["probabilities"] for line in lines)
    assert f"0 allowed, {len(texts)} to review" in said
    assert "cannot be read" not in said


def test_a_post_in_a_folder_of_any_characters_is_decided(single, tmp_path, capsys):
    (tmp_path / "p.yaml").write_text("labels: {busy: {review: 0.0}}\n")
    (tmp_path / "posts" / "new").mkdir(parents=True)
    (tmp_path / "posts" / "new" / "1.txt").write_bytes(b"the \0boat\n")
    (tmp_path / "posts" / "new" / "1.png").write_bytes(b"no text")
    assert run("moderate", single.output, tmp_path / "posts", "--policy", tmp_path / "p.yaml") == 0
    out, said = capsys.readouterr()
    assert json.loads(out)["outcome"] == "review"
    assert "left out 1 files, the first: " in said


def test_a_row_that_cannot_be_read_goes_to_review(single, tmp_path, capsys):
    (tmp_path / "p.yaml").write_text("labels: {busy: {block: 1.0}}\n")
    posts = tmp_path / "posts.jsonl"
    posts.write_bytes(b'{"text": 5}\n{"text": "the boat"}\n{"text": "\xff"}\n{"text": "a\n{"text": "b"}\n[1]\n')
    told = ("moderate", single.output, posts, "--policy", tmp_path / "p.yaml", "--with-text")
    assert f"{posts}:1: text is not a string" in refused(capsys, *told)
    assert run(*told, "--skip-bad-rows") == 0
    out, said = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["line"], line["outcome"]) for line in lines] == [
        *((1, "review"), (2, "allow"), (3, "review"), (4, "review"), (5, "allow"), (6, "review"))
    ]
    assert [line["problem"].split(": ")[1] for line in lines if "problem" in line] == [
        *("text is not a string", "badly encoded", "invalid JSON", "not a JSON object")
    ]
    assert {(line["text_sha256"], line["text"]) for line in lines if "problem" in line} == {(None, None)}
    assert "2 allowed, 4 to review, 0 blocked" in said
    assert f"to review because they cannot be read: 4 rows, the first: {posts}:1: " in said


def test_thresholds_are_chosen_on_what_is_read(single, rows, tmp_path, capsys):
    """Posts of several sentences are read by sentence here too, unless that is not wanted."""
    posts = tmp_path / "posts.csv"
    table = [line.rsplit(",", 1) for line in rows.read_text().splitlines()[1:]]
    both = [(f"{a}. {b}.", label) for (a, label), (b, _) in zip(table[:100], table[100:200], strict=True)]
    posts.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in both) + "a" * 600 + ",busy\n")
    found = {}
    for sentences in (True, False):
        output = tmp_path / f"{sentences}.yaml"
        told = ("policy", single.output, posts, "--output", output, "--labels", "busy", "--longest", 500)
        assert run(*told, *([] if sentences else ["--no-sentences"])) == 0
        assert "left out 1 rows that are longer than 500 characters" in capsys.readouterr().err
        found[sentences] = yaml.safe_load(output.read_text())
        assert found[sentences]["sentences"] is sentences
        assert found[sentences]["chosen"]["rows"] == 100
        # What the audit counts is what was promised
        assert (
            run("moderate", single.output, posts, "--policy", output, "--output", tmp_path / "a", "--text", "text")
            == 0
        )
        lines = [json.loads(line) for line in (tmp_path / "a").read_text().splitlines()]
        held = sum(line["outcome"] != "allow" for line in lines[:100])
        assert held == found[sentences]["chosen"]["reached"]["busy"]["review"]["posts"]
        (tmp_path / "a").unlink()
    assert found[True]["labels"] != found[False]["labels"]


def test_what_does_not_fit_is_explained(single, regression, rows, tmp_path, capsys):
    told = ("policy", single.output, rows, "--output", tmp_path / "p.yaml")
    assert "--labels: name those that posts are held back for" in refused(capsys, *told)
    assert "the model does not know rude; it knows calm" in refused(capsys, *told, "--labels", "rude")
    assert "--block-precision 1.5" in refused(capsys, *told, "--labels", "busy", "--block-precision", 1.5)
    assert "gives no labels" in refused(
        capsys, "policy", regression.output, rows, "--output", tmp_path / "p.yaml", "--labels", "a"
    )
    calm = tmp_path / "calm.csv"
    calm.write_text("text,label\nthe boat,calm\n")
    assert "no row of" in refused(capsys, "policy", single.output, calm, *told[3:], "--labels", "busy")
    (tmp_path / "p.yaml").write_text("labels: {busy: {block: 0.5}}\n")
    assert "is there already" in refused(capsys, *told, "--labels", "busy")
    assert "reads or keeps" in refused(
        capsys, "moderate", single.output, rows, "--policy", tmp_path / "p.yaml", "--output", rows
    )
    assert "reads or keeps" in refused(
        capsys, *("moderate", single.output, rows, "--policy", tmp_path / "p.yaml", "--output", tmp_path / "p.yaml")
    )
    (tmp_path / "audit.jsonl").write_text("of yesterday")
    told_again = ("moderate", single.output, rows, "--policy", tmp_path / "p.yaml")
    assert "is there already" in refused(capsys, *told_again, "--output", tmp_path / "audit.jsonl")
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("sentence1,sentence2\na,b\n")
    line = refused(capsys, "moderate", single.output, pairs, "--policy", tmp_path / "p.yaml")
    assert "a post is one text: name its column, --text" in line


@pytest.mark.parametrize("verb", ["policy", "pairs choose"])
def test_an_output_that_cannot_be_written_is_found_out_before_any_work(single, rows, tmp_path, capsys, verb):
    (tmp_path / "m").mkdir()
    told = (*verb.split(), tmp_path / "no-model", tmp_path / "no-rows.csv", "--output")
    line = refused(capsys, *told, tmp_path / "nodir" / "p.yaml")
    assert f"--output {tmp_path / 'nodir' / 'p.yaml'}: there is no folder" in line
    line = refused(capsys, *told, tmp_path / "m", "--overwrite")
    assert f"--output {tmp_path / 'm'}: a folder" in line
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


def test_a_policy_with_one_label_twice_is_refused(single, rows, tmp_path, capsys):
    policy = tmp_path / "p.yaml"
    policy.write_text("labels:\n  busy: {block: 0.1}\n  calm: {block: 0.1}\n  busy: {block: 1.0}\n")
    line = refused(capsys, "moderate", single.output, rows, "--policy", policy)
    assert f"{policy}: cannot be read as a policy (busy is there twice, again in line 4" in line
