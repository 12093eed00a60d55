"""`squeezebert search` as it is typed: what it writes, how it goes on, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from test_latency import measured

from dense_models import bert, text_file
from squeezebert.cli import main
from squeezebert.model import SqueezeBertModel
from squeezebert.search import finding, job, latency
from squeezebert.search.latency import ENGINES
from squeezebert.search.space import Shape, Space

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

    def timed(model: SqueezeBertModel, anchor: SqueezeBertModel, target: Any) -> dict[str, float]:
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
        assert found["errors"]["healed"] <= max(found["errors"]["inherited"], found["errors"]["fitted"])
        model = SqueezeBertModel.from_pretrained(output / name)
        assert yaml.safe_load((output / name / "shape.yaml").read_text()) == found["shape"]
        assert [model.config.heads(i) for i in range(2)] == found["shape"]["kept_heads"]
        assert f"{name}: " in said
    page = (output / "report.html").read_text()
    for phrase in ("<svg", "Networks searched in", "8ms: ", "FFN3", "How well latency is predicted"):
        assert phrase in page
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


@pytest.mark.parametrize("stage", ["_heal", "time_network"])
def test_what_was_timed_and_chosen_stays_after_a_kill_however_times_move(
    stage: str, base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another round of timing after a kill finds other times, and must not be asked."""
    arguments = (base, "--text", text, "--budget-ratio", 0.5, *FAST, "--output", tmp_path / "out")
    real = finding.measure_ratios

    def moved(by: float) -> Any:
        def ratios(*given: Any, **options: Any) -> Any:
            found = real(*given, **options)
            return {name: {**row, "ratio": row["ratio"] * by} for name, row in found.items()}

        return ratios

    with monkeypatch.context() as patch:
        patch.setattr(finding, "measure_ratios", moved(1.1))
        patch.setattr(finding, stage, dies)
        with pytest.raises(Killed):
            run(*arguments)
    state = json.loads((tmp_path / "out" / "finding-0.5x.json").read_text())
    with monkeypatch.context() as patch:
        patch.setattr(finding, "measure_ratios", moved(0.8))
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
    real, timer = finding.measure_ratios, finding.time_network

    def slower(shapes: dict[str, Shape], *rest: Any, **options: Any) -> Any:
        return {name: {**row, "ratio": 1.2 * row["ratio"]} for name, row in real(shapes, *rest, **options).items()}

    def timed(*given: Any) -> dict[str, float]:
        found = timer(*given)
        return {**found, "ratio": 1.2 * found["ratio"]}

    monkeypatch.setattr(finding, "measure_ratios", slower)
    monkeypatch.setattr(finding, "time_network", timed)
    assert run(base, "--text", text, "--budget-ratio", 0.8, *FAST, "--output", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "search.json").read_text())["found"]["0.8x"]
    assert len(found["rounds"]) > 1
    (taken,) = {row["ratio"] for one in found["rounds"] for row in one if row["shape"] == found["shape"]}
    assert 0.9 * 0.8 <= taken <= 0.8
    # One that lands elsewhere in the end is told
    capsys.readouterr()
    monkeypatch.setattr(finding, "time_network", lambda *given: {"ms": 9.6, "anchor_ms": 10.0, "ratio": 0.96})
    assert run(base, "--text", text, "--budget-ratio", 0.8, *FAST, "--output", tmp_path / "late") == 0
    assert "warning: that is 20% over the budget" in capsys.readouterr().err


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
    assert "latency table: 8 of" not in said
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
        (("--budget-ratio", "3"), "leaves nothing to search"),
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


def test_every_engine_is_one_that_the_exporter_writes() -> None:
    assert set(ENGINES.values()) == {"fp32", "int8"}
