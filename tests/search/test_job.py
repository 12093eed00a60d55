"""`squeezebert search` as it is typed: what it writes, how it goes on, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from test_latency import measured

from dense_models import bert, classifier, text_file
from squeezebert.cli import main
from squeezebert.export.checkpoint import read_checkpoint
from squeezebert.files.errors import DivergedError
from squeezebert.model import SqueezeBertModel
from squeezebert.search import finding, job, latency
from squeezebert.search.finding import time_network
from squeezebert.search.learning import GumbelLearner, SandwichLearner
from squeezebert.search.space import Shape, Space
from squeezebert.training import general
from tiny_checkpoints import texts

FAST = (
    *("--networks", "40", "--steps", "6", "--batch-tokens", "200", "--population", "10", "--generations", "2"),
    *("--calibration-tokens", "1500", "--held-out", "8", "--heal-steps", "3", "--save-every", "2", "--drawn", "6"),
    *("--tokens", "16", "--max-length", "32"),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("base") / "bert")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_file(tmp_path_factory.mktemp("text"))


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timing replaced by arithmetic on the networks' graphs."""

    def ratios(shapes: dict[str, Shape], space: Space, *rest: Any, **options: Any) -> Any:
        dense = measured({"dense": space.dense}, space=space)["dense"]["ratio"]
        return {
            name: {**row, "ratio": row["ratio"] / dense, "anchor_ms": 10.0}
            for name, row in measured(shapes, space=space).items()
        }

    def timed(model: SqueezeBertModel, anchor: SqueezeBertModel, *rest: Any) -> dict[str, float]:
        space = Space.of(anchor.config)
        told = {field: getattr(model.config, field) for field in space.choices}
        shape = space.repaired({field: value for field, value in told.items() if value is not None})
        row = ratios({"own": shape}, space)["own"]
        return {"ms": 10 * row["ratio"], "anchor_ms": 10.0, "ratio": row["ratio"]}

    monkeypatch.setattr(latency, "measure_ratios", ratios)
    monkeypatch.setattr(job, "measure_ratios", ratios)
    monkeypatch.setattr(finding, "measure_ratios", ratios)
    monkeypatch.setattr(finding, "time_network", timed)


def run(*arguments: object) -> int:
    return main(["search", *(str(argument) for argument in arguments)])


@pytest.mark.parametrize("method", ["evolution", "gumbel"])
def test_a_network_for_each_budget(
    method: str, base: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    arguments = (base, "--text", text, "--output", output, "--budget-ms", 5, 8, "--method", method, *FAST)
    assert run(*arguments) == 0
    said = capsys.readouterr().err
    assert "latency model: off by" in said
    record = json.loads((output / "search.json").read_text())
    assert list(record["found"]) == ["5ms", "8ms"]
    for name, ms in (("5ms", 5), ("8ms", 8)):
        found = record["found"][name]
        assert found["budget"] == ms / 10
        assert abs(found["timed"]["ratio"] / found["budget"] - 1) <= 0.1
        assert found["errors"]["healed"] < found["errors"][found["start"]]
        model = SqueezeBertModel.from_pretrained(output / name)
        assert yaml.safe_load((output / name / "shape.yaml").read_text()) == found["shape"]
        assert [model.config.heads(i) for i in range(2)] == found["shape"]["kept_heads"]
        assert f"{name}: " in said
    page = (output / "report.html").read_text()
    for phrase in ("<svg", "Networks searched in", "8ms: ", "FFN3", "How well latency is predicted", "found: "):
        assert phrase in page
    manifest = json.loads((output / "text" / "corpus.json").read_text())
    assert record["text"] == {name: manifest[name] for name in record["text"]}
    assert record["text"]["source"] == [str(text)]
    assert f"squeezebert export {output / '8ms'} --output VECTORS" in said
    supernets = list(output.glob("supernet*/supernet.pt"))
    assert len(supernets) == (1 if method == "evolution" else 2)
    for place in supernets:
        assert not torch.load(place, weights_only=True)["optimiser"]["state"]
    assert not [*output.glob("start-*"), *output.glob("healing-*")]
    assert run(*arguments) == 0  # done already
    assert "supernet: step" not in capsys.readouterr().err


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def dies(*given: Any, **options: Any) -> Any:
    raise Killed


def cut_before_finding(arguments: tuple[object, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that is killed when its supernet is trained."""
    with monkeypatch.context() as patch:
        patch.setattr(job, "find_network", dies)
        with pytest.raises(Killed):
            run(*arguments)


@pytest.mark.parametrize("stage", ["train", "_search", "_heal", "write_report"])
def test_a_killed_search_ends_as_an_undisturbed_one(
    stage: str, base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "measure_ratios", slower(finding.measure_ratios, 1.1))  # the model is corrected
    arguments = (base, "--text", text, "--budget-ratio", 0.5, *FAST)
    assert run(*arguments, "--output", tmp_path / "whole") == 0
    where = job if hasattr(job, stage) else finding
    real = getattr(where, stage)

    def dies(*given: Any, **options: Any) -> Any:
        if stage == "train":
            real(*given, **options)  # its own saves are tested beside it
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(where, stage, dies)
        with pytest.raises(Killed):
            run(*arguments, "--output", tmp_path / "cut")
    assert run(*arguments, "--output", tmp_path / "cut") == 0
    for name in ("0.5x/model.safetensors", "0.5x/shape.yaml", "judged-all.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), name
    whole, cut = (json.loads((tmp_path / name / "search.json").read_text())["found"] for name in ("whole", "cut"))
    assert whole == cut
    assert len(whole["0.5x"]["rounds"]) > 1


@pytest.mark.parametrize("method", ["evolution", "gumbel"])
def test_a_budget_keeps_its_share_of_the_dense_time_after_a_kill(
    method: str, base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (base, "--text", text, "--method", method, *FAST, "--output", tmp_path / "out")
    cut_before_finding((*arguments, "--budget-ms", 8, 5), monkeypatch)
    real = job.measure_ratios

    def later(*given: Any, **options: Any) -> Any:
        return {name: {**row, "anchor_ms": 12.5} for name, row in real(*given, **options).items()}

    monkeypatch.setattr(job, "measure_ratios", later)
    assert run(*arguments, "--budget-ms", 8, 5) == 0
    found = json.loads((tmp_path / "out" / "search.json").read_text())["found"]
    assert {name: one["budget"] for name, one in found.items()} == {"8ms": 0.8, "5ms": 0.5}
    more = run(*arguments, "--budget-ms", 8, 6)
    if method == "evolution":
        assert more == 1
        return
    found = json.loads((tmp_path / "out" / "search.json").read_text())["found"]
    assert {name: one["budget"] for name, one in found.items()} == {"8ms": 0.8, "6ms": 6 / 12.5}


def slower(real: Any, by: float) -> Any:
    """A machine on which networks take longer than the table says."""

    def ratios(*given: Any, **options: Any) -> Any:
        return {name: {**row, "ratio": by * row["ratio"]} for name, row in real(*given, **options).items()}

    return ratios


@pytest.mark.parametrize("stage", ["_heal", "time_network"])
def test_what_was_timed_and_chosen_stays_after_a_kill_however_times_move(
    stage: str, base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another round of timing after a kill finds other times, and must not be asked."""
    arguments = (base, "--text", text, "--budget-ratio", 0.5, *FAST, "--output", tmp_path / "out")
    real = finding.measure_ratios
    with monkeypatch.context() as patch:
        patch.setattr(finding, "measure_ratios", slower(real, 1.1))
        patch.setattr(finding, stage, dies)
        with pytest.raises(Killed):
            run(*arguments)
    state = json.loads((tmp_path / "out" / "finding-0.5x.json").read_text())
    with monkeypatch.context() as patch:
        patch.setattr(finding, "measure_ratios", slower(real, 0.8))
        assert run(*arguments) == 0
    found = json.loads((tmp_path / "out" / "search.json").read_text())["found"]["0.5x"]
    assert found["rounds"] == state["rounds"]
    assert found["shape"] == state["chosen"]["shape"]
    model = SqueezeBertModel.from_pretrained(tmp_path / "out" / "0.5x")
    assert [model.config.heads(i) for i in range(2)] == found["shape"]["kept_heads"]
    assert [model.config.rank("output_rank", i) for i in range(2)] == found["shape"]["output_rank"]


def test_networks_that_take_longer_than_predicted_are_not_taken(
    base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table knows nothing of what the networks that are found take more; timing them does."""
    timer = finding.time_network

    def timed(*given: Any) -> dict[str, float]:
        found = timer(*given)
        return {**found, "ratio": 1.2 * found["ratio"]}

    monkeypatch.setattr(finding, "measure_ratios", slower(finding.measure_ratios, 1.2))
    monkeypatch.setattr(finding, "time_network", timed)
    assert run(base, "--text", text, "--budget-ratio", 0.8, *FAST, "--output", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "search.json").read_text())["found"]["0.8x"]
    assert len(found["rounds"]) > 1
    (taken,) = {row["ratio"] for one in found["rounds"] for row in one if row["shape"] == found["shape"]}
    assert 0.9 * 0.8 <= taken <= 0.8
    shapes = [json.dumps(row["shape"], sort_keys=True) for one in found["rounds"] for row in one]
    assert len(set(shapes)) == len(shapes)  # none was timed twice
    # One that lands elsewhere in the end is told
    capsys.readouterr()
    monkeypatch.setattr(finding, "time_network", lambda *given: {"ms": 9.6, "anchor_ms": 10.0, "ratio": 0.96})
    assert run(base, "--text", text, "--budget-ratio", 0.8, *FAST, "--output", tmp_path / "late") == 0
    assert "warning: that is 20% over the budget" in capsys.readouterr().err


def test_the_network_is_timed_beside_the_dense_one(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the scales that an export finds for each, on texts without their padding."""
    dense = SqueezeBertModel.from_pretrained(base).eval()
    space = Space.of(dense.config)
    empty = SqueezeBertModel(space.config(space.empty, dense.config)).eval()
    seen: list[list[tuple[int, ...]]] = []
    real = finding.find_scales

    def noting(model: Any, inputs: Any) -> Any:
        seen.append([tuple(ids.shape) for ids, _ in inputs])
        return real(model, inputs)

    monkeypatch.setattr(finding, "find_scales", noting)
    ids = torch.ones(2, 16, dtype=torch.long)
    mask = torch.tensor([[1] * 16, [1] * 5 + [0] * 11])
    for reads in ("first", "all"):
        target = latency.Target(tokens=16, reads=reads)
        found = time_network(empty, dense, target, [(ids, mask, 0 * ids)])
        assert 0 < found["ms"] < found["anchor_ms"]
        assert found["ratio"] < 0.9
    assert seen == [[(1, 16), (1, 5)]] * 4


def test_the_time_of_a_killed_search_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(job, "time", SimpleNamespace(monotonic=lambda: now[0]))
    (tmp_path / "job.json").write_text("{}")
    said: list[str] = []
    say = job._Clock(tmp_path / "time.json").noting(said.append)
    now[0] = 5.0
    say("begun")
    assert not (tmp_path / "time.json").exists()
    now[0] = 30.0
    say("gone on")  # and is killed later
    now[0] = 100.0
    again = job._Clock(tmp_path / "time.json")
    now[0] = 107.0
    assert again.seconds() == 37.0
    assert said == ["begun", "gone on"]


def test_another_checkpoint_or_text_is_another_search(
    base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, words = shutil.copytree(base, tmp_path / "mine"), shutil.copy(text, tmp_path / "text.txt")
    arguments = (mine, "--text", words, "--budget-ratio", 0.5, *FAST, "--output", tmp_path / "out")
    cut_before_finding(arguments, monkeypatch)
    Path(words).write_text(Path(words).read_text() + "\nanother line of text that was not there.\n")
    assert run(*arguments) == 1
    assert "holds a search with another --text" in capsys.readouterr().err
    shutil.copy(text, words)
    model = SqueezeBertModel.from_pretrained(mine)
    model.encoder.layers[0].output.conv1d.bias.data += 1
    model.save_pretrained(mine)
    assert run(*arguments) == 1
    assert "holds a search with another checkpoint" in capsys.readouterr().err


def test_a_rejected_budget_leaves_room_for_another(
    base: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (base, "--text", text, *FAST, "--output", tmp_path / "out")
    assert run(*arguments, "--budget-ratio", 0.001) == 1
    assert run(*arguments, "--budget-ratio", 0.5) == 0
    capsys.readouterr()
    assert run(*arguments, "--budget-ratio", 0.6) == 1
    assert "which its supernet was trained for" in (said := capsys.readouterr().err)
    assert f"--table {tmp_path / 'out' / 'latency.json'} spares" in said
    more = ("--table", tmp_path / "out" / "latency.json", "--output", tmp_path / "other")
    assert run(base, "--text", text, *FAST, "--budget-ratio", 0.6, *more) == 0
    assert "networks timed" in (said := capsys.readouterr().err)
    assert "latency table: network" not in said
    assert run(*arguments, "--budget-ratio", 0.6, "--table", tmp_path / "no" / "t.json") == 1
    assert "there is no folder" in capsys.readouterr().err


def test_damaged_files_are_named(
    base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (base, "--text", text, "--budget-ratio", 0.5, *FAST, "--output", tmp_path / "out")
    cut_before_finding(arguments, monkeypatch)
    saved = tmp_path / "out" / "supernet" / "supernet.pt"
    whole = saved.read_bytes()
    saved.write_bytes(whole[: len(whole) // 2])
    assert run(*arguments) == 1
    assert "supernet.pt: damaged" in capsys.readouterr().err
    saved.unlink()
    table = tmp_path / "out" / "latency.json"
    told = json.loads(table.read_text())
    table.write_text(json.dumps({**told, "rows": [{"shape": told["rows"][0]["shape"]}]}))
    assert run(*arguments) == 1
    assert "no latency table" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --budget-ms, or --budget-ratio"),
        (("--budget-ms", "5", "--budget-ratio", "0.5"), "are both given, one of them perhaps by a recipe"),
        (("--budget-ms", "-1"), "--budget-ms -1.0: expected a number above 0"),
        (("--budget-ms", "0.001"), "is below what the fastest network takes"),
        (("--budget-ms", "10"), "--budget-ms 10: leaves nothing to search: the dense network takes 10.00 ms"),
        (("--budget-ratio", "1"), "--budget-ratio 1.0: leaves nothing to search"),
        (("--budget-ratio", "0.5", "--seed", "-1"), "--seed -1: expected a whole number"),
        (("--budget-ratio", "0.5", "--tokens", "4000"), "--tokens 4000: "),
    ],
)
def test_what_cannot_be_is_said(
    arguments: tuple[str, ...],
    message: str,
    base: Path,
    text: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fast = [one for one in FAST if "--tokens" not in arguments or one not in ("--tokens", "16")]
    assert run(base, "--text", text, "--output", tmp_path / "out", *fast, *arguments) == 1
    assert message in capsys.readouterr().err


def test_an_output_of_something_else_is_left_alone(
    base: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "thesis.txt").write_text("mine")
    arguments = (base, "--text", text, "--output", output, "--budget-ratio", 0.5, *FAST)
    assert run(*arguments) == 1
    assert "is not empty and holds no search" in capsys.readouterr().err
    shutil.rmtree(output)
    assert run(*arguments) == 0
    capsys.readouterr()
    assert run(*arguments, "--seed", 9) == 1
    assert "holds a search with another --seed" in capsys.readouterr().err


def lines(path: Path, *rows: str) -> Path:
    path.write_text("".join(f"{row}\n" for row in rows))
    return path


def test_what_is_wrong_with_the_text_is_said_before_networks_are_timed(
    base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (base, "--budget-ratio", 0.5, *FAST, "--output", tmp_path / "out")
    table = lines(tmp_path / "table.csv", "note,label", *(f"{one},x" for one in texts(40)))
    short = lines(tmp_path / "short.txt", *[text for one in texts(3) for text in (f"{one}.", "")])
    alone = bert(tmp_path / "alone", type_vocab_size=1)
    pairs = lines(tmp_path / "pairs.csv", "text,text_pair", *(f"{one},{one}" for one in texts(40)))
    with monkeypatch.context() as patch:
        patch.setattr(job, "build_table", dies)
        for given, message in (
            ((*arguments, "--text", tmp_path / "none.txt"), "none.txt"),
            ((*arguments, "--text", table, "--column", "words"), "words"),
            ((*arguments, "--text", short, "--method", "gumbel"), "--method gumbel takes 4 at least"),
            ((alone, *arguments[1:], "--text", pairs), "knows one text at a time (type_vocab_size 1)"),
        ):
            assert run(*given) == 1
            assert message in capsys.readouterr().err
        with pytest.raises(Killed):  # nothing of what was refused is held against it
            run(*arguments, "--text", table, "--column", "note")


@pytest.mark.parametrize(("sequences", "method"), [(4, "gumbel"), (7, "evolution"), (150, "gumbel")])
def test_nothing_is_learned_from_text_that_says_what_came_of_it(
    sequences: int, method: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[int]] = {}

    def noting(name: str, real: Any, place: int) -> Any:
        def call(*given: Any, **options: Any) -> Any:
            seen.setdefault(name, set()).update(np.asarray(given[place]).tolist())
            return real(*given, **options)

        return call

    real = general._split

    def split(*given: Any) -> Any:
        training, measured_on = real(*given)
        seen["healing"], seen["measured"] = set(training.tolist()), set(measured_on.tolist())
        return training, measured_on

    monkeypatch.setattr(general, "_split", split)
    monkeypatch.setattr(job, "calibration_batches", noting("calibration", job.calibration_batches, 3))
    monkeypatch.setattr(job, "train", noting("learning", job.train, 2))
    monkeypatch.setattr(job, "Judge", noting("judging", job.Judge, 2))
    words = lines(tmp_path / "text.txt", *[text for one in texts(sequences) for text in (f"{one}.", "")])
    arguments = (base, "--text", words, "--budget-ratio", 0.5, "--method", method, *FAST, "--output", tmp_path / "o")
    assert run(*arguments) == 0
    total = json.loads((tmp_path / "o" / "search.json").read_text())["text"]["sequences"]
    assert total >= sequences
    assert seen["learning"] | seen["judging"] == set(range(total))
    assert not seen["learning"] & seen["judging"]
    assert (seen["healing"], seen["measured"]) == (seen["learning"], seen["judging"])
    of_choices = set(sorted(seen["learning"])[::5]) if method == "gumbel" else set()
    assert not seen["calibration"] & (seen["judging"] | of_choices)


def test_rows_that_a_classifier_is_evaluated_on_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dense = classifier(tmp_path / "dense")
    rows = [json.loads(line)["text"] for line in (dense / "evaluation.jsonl").read_text().splitlines()]
    mixed = lines(tmp_path / "mixed.txt", *texts(60, seed=8), *rows)
    arguments = (dense, "--text", mixed, "--budget-ratio", 0.5, *FAST, "--output", tmp_path / "out")
    monkeypatch.setattr(job, "build_table", dies)
    with pytest.raises(Killed):
        run(*arguments)
    assert f"40 texts are left out: {dense} is evaluated on them" in capsys.readouterr().err


def test_how_an_encoder_embeds_is_carried_over(base: Path, text: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(base, tmp_path / "mine")
    (mine / "1_Pooling").mkdir()
    (mine / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert run(mine, "--text", text, "--budget-ratio", 0.5, *FAST, "--output", tmp_path / "out") == 0
    assert read_checkpoint(tmp_path / "out" / "0.5x").pooling == "first"


def test_healing_that_runs_away_is_repeated_alone(
    base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (base, "--text", text, "--budget-ratio", 0.6, 0.8, *FAST, "--output", tmp_path / "out")
    real = finding.distil_general
    healed: list[Any] = []

    def second_runs_away(*given: Any, **options: Any) -> Any:
        healed.append(given[4])
        if len(healed) == 2:
            raise DivergedError("lower --learning-rate")
        return real(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(finding, "distil_general", second_runs_away)
        assert run(*arguments) == 1
    said = capsys.readouterr().err
    assert "healing 0.8x ran away: repeat the command with a lower --heal-learning-rate than 0.0005" in said
    assert healed[0].save_every == 2
    state = json.loads((tmp_path / "out" / "finding-0.8x.json").read_text())
    with monkeypatch.context() as patch:
        patch.setattr(finding, "measure_ratios", dies)
        assert run(*arguments, "--heal-learning-rate", 1e-4) == 0
    assert "0.6x: found before, by --heal-steps 3 --heal-learning-rate 0.0005, and left so" in capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "search.json").read_text())["found"]
    assert [one["healing"]["learning_rate"] for one in found.values()] == [5e-4, 1e-4]
    assert found["0.8x"]["rounds"] == state["rounds"]
    assert (tmp_path / "out" / "0.8x" / "healing.json").exists()


def test_what_a_budget_was_timed_and_chosen_by_can_be_made_anew(
    base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (base, "--text", text, "--budget-ratio", 0.5, *FAST, "--output", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(finding, "time_network", dies)
        with pytest.raises(Killed):
            run(*arguments)
    state = tmp_path / "out" / "finding-0.5x.json"
    state.write_text(state.read_text()[:100])
    assert run(*arguments) == 1
    said = capsys.readouterr().err
    assert f"{state}: damaged" in said
    assert "delete this file and repeat the command" in said
    state.unlink()
    assert run(*arguments) == 0
    # A network whose folder was deleted is healed again, and nothing is timed or trained for it
    weights = tmp_path / "out" / "0.5x" / "model.safetensors"
    before = weights.read_bytes()
    shutil.rmtree(weights.parent)
    with monkeypatch.context() as patch:
        for module, function in ((finding, "measure_ratios"), (GumbelLearner, "take"), (SandwichLearner, "take")):
            patch.setattr(module, function, dies)
        assert run(*arguments) == 0
    assert weights.read_bytes() == before
    (tmp_path / "out" / "search.json").unlink()
    (tmp_path / "out" / "0.5x" / "search.json").write_text("{")
    assert run(*arguments) == 1
    assert f"delete the folder {tmp_path / 'out' / '0.5x'} and repeat" in capsys.readouterr().err


def test_a_table_that_is_made_is_nobody_elses(
    base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (base, "--text", text, "--budget-ratio", 0.5, *FAST)
    table = tmp_path / "out" / "latency.json"

    def other(*given: Any, **options: Any) -> Any:
        monkeypatch.setattr(job, "build_table", dies)
        assert run(*arguments, "--output", tmp_path / "other", "--table", table) == 1
        raise Killed

    monkeypatch.setattr(job, "build_table", other)
    with pytest.raises(Killed):
        run(*arguments, "--output", tmp_path / "out")
    assert f"{table}: another run is writing it: wait until that has ended, or choose another --table" in (
        capsys.readouterr().err
    )


def test_what_is_read_of_a_network_is_timed(
    base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def noting(space: Any, config: Any, target: Any, *rest: Any, **options: Any) -> Any:
        asked.append(target.reads)
        raise Killed

    monkeypatch.setattr(job, "build_table", noting)
    for more in ((), ("--reads", "all")):
        with pytest.raises(Killed):
            run(base, "--text", text, "--budget-ratio", 0.5, *FAST, "--output", tmp_path / f"o{len(more)}", *more)
    assert asked == ["first", "all"]
