"""The stopwatch, the table and the page, on rows whose numbers are known; latency on a real exported file."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from squeezebert.benchmark.baselines import bert_base_config, write_baseline, write_usual
from squeezebert.benchmark.latency import measure_latency
from squeezebert.benchmark.report import Report, Row, cells, header, html_page, plot_svg, text_table
from squeezebert.files.machine import describe_machine, package_versions, peak_memory_mb
from squeezebert.files.stopwatch import Timing, compare, interleave, summarise
from squeezebert.model import SqueezeBertConfig
from squeezebert.workflows.demo import LENGTHS, STUDENT, TEACHER, USUAL, checks


def timing(ms: float) -> Timing:
    return Timing(ms, ms * 0.9, ms * 1.2, 30)


def row(model: str, precision: str, ms: float, accuracy: float | None = None) -> Row:
    interval = None if accuracy is None else (accuracy - 0.02, accuracy + 0.01)
    return Row(
        model,
        precision,
        12.34,
        {32: timing(ms / 4), 128: timing(ms)},
        {32: 50 / ms, 128: 200 / ms},
        accuracy,
        interval,
    )


ROWS = [
    row("BERT-base", "fp32", 200.0),
    row(TEACHER, "fp32", 40.0, 0.961),
    row(STUDENT, "fp32", 18.0, 0.95),
    row(USUAL, "int8", 16.0, 0.96),
    row(STUDENT, "int8", 8.0, 0.95),
]


def test_things_are_timed_in_turn_and_warm_up_is_left_out():
    calls = []
    found = interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, runs=4, warmup=2)
    assert calls == ["a", "b"] * 6
    assert {timing.runs for timing in found.values()} == {4}
    calls.clear()
    found = interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, runs=2, warmup=1, burst=3)
    assert calls == (["a"] * 4 + ["b"] * 4) * 3
    assert found["a"].runs == 6
    with pytest.raises(ValueError, match="at least 1"):
        interleave({}, runs=0)


def test_ratios_hold_where_the_speed_of_the_machine_changes(monkeypatch: pytest.MonkeyPatch):
    """A thing is compared with the runs of the anchor beside it, not with all of them."""
    calls: list[str] = []
    now = 0.0

    def taking(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            nonlocal now
            calls.append(name)
            now += seconds * (3 if (len(calls) - 1) % 20 >= 10 else 1)  # slow beside `same`

        return run

    monkeypatch.setattr("squeezebert.files.stopwatch.time.perf_counter", lambda: now)
    things = {"half": taking("half", 0.005), "same": taking("same", 0.01)}
    found = compare(things, taking("anchor", 0.01), turns=20, warmup=1, burst=4)
    assert calls[:20] == ["anchor"] * 5 + ["half"] * 5 + ["anchor"] * 5 + ["same"] * 5
    assert len(calls) == 21 * 20
    assert found["half"].ratio == pytest.approx(0.5)
    assert found["same"].ratio == pytest.approx(1)
    assert found["half"].to_dict() == {
        "ms": pytest.approx(5),
        "anchor_ms": pytest.approx(10),
        "ratio": found["half"].ratio,
    }
    with pytest.raises(ValueError, match="at least 1"):
        compare({}, lambda: None, turns=0)


def test_summary_is_median_and_tenths():
    found = summarise([float(ms) for ms in range(21, 0, -1)])
    assert (found.median_ms, found.low_ms, found.high_ms, found.runs) == (11.0, 3.0, 19.0, 21)


def test_cells_say_what_was_measured():
    assert cells(ROWS[1]) == [f"{TEACHER} fp32", "96.1 % (94.1 to 97.1)", "12.3", "10.00", "40.00", "1.2x", "5.0x"]
    assert cells(ROWS[0])[1] == "random weights"
    assert len(header(ROWS)) == len(cells(ROWS[0]))


def test_the_table_is_aligned_and_names_its_baseline():
    lines = text_table(ROWS, "BERT-base fp32").splitlines()
    body = lines[2 : 2 + len(ROWS)]
    assert len({line.index(" ms") if " ms" in line else len(line) for line in body}) <= 2
    assert all(line.endswith("x") for line in body)
    assert "BERT-base fp32's latency divided" in lines[-1]


def test_the_plot_is_well_formed_and_shows_every_row():
    svg = plot_svg(ROWS, 128)
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert svg.count('id="line2d') > len(ROWS)


def test_the_page_is_self_contained_and_escapes(tmp_path):
    examples = [{"text": "<b>a & b</b>", "label": "x<y", "probability": 0.5}]
    page = html_page(Report("T", "lead", ROWS, "BERT-base fp32", examples, {"Command": "squeezebert demo"}), 128)
    assert "&lt;b&gt;a &amp; b&lt;/b&gt;" in page
    assert "x&lt;y" in page
    assert "<script" not in page
    fetched = re.findall(r"""(?:src|href)=["'](?!#)([^"']+)""", re.sub(r"<svg.*?</svg>", "", page, flags=re.S))
    assert not fetched
    for one in ROWS:
        assert one.name in page


def test_the_demo_says_no_when_a_promise_is_broken():
    assert [check["holds"] for check in checks(ROWS)] == [True] + [True] * len(LENGTHS)
    slow = [*ROWS[:-1], row(STUDENT, "int8", 17.0, 0.95)]
    assert [check["holds"] for check in checks(slow)] == [True] + [False] * len(LENGTHS)
    bad = [*ROWS[:2], row(STUDENT, "fp32", 18.0, 0.94), *ROWS[3:]]
    assert not checks(bad)[0]["holds"]


def test_a_baseline_is_written_and_longer_text_takes_longer(tmp_path):
    config = SqueezeBertConfig(
        vocab_size=1000, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256
    )
    files = write_baseline(config, tmp_path / "small")
    found = measure_latency(files, [8, 512], runs=5)
    assert set(found) == {"fp32", "int8"}
    assert found["fp32"][512].median_ms > 2 * found["fp32"][8].median_ms
    assert bert_base_config(5).num_labels == 5
    usual = write_usual(config, tmp_path / "usual")
    found = measure_latency(usual | {"ours": files["fp32"]}, [16], runs=2, burst=2)
    assert set(found) == {"fp32", "int8", "ours"}
    assert usual["int8"].path.stat().st_size < 0.6 * usual["fp32"].path.stat().st_size


@pytest.mark.parametrize(
    ("lines", "units"),
    [
        ("model name\t: A chip\nflags\t\t: fpu avx avx2 avx512_vnni amx_tile amx_int8\n", "avx2 avx512_vnni amx_int8"),
        ("model name\t: A chip\nFeatures\t: fp asimd asimddp i8mm\n", "asimddp i8mm"),
        ("model name\t: A chip\n", ""),
    ],
)
def test_processors_of_one_name_differ_in_their_vector_units(lines, units, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(lines)
    monkeypatch.setattr("squeezebert.files.machine._CPUINFO", tmp_path / "cpuinfo")
    told = describe_machine()
    assert (told["processor"], told["vector_units"]) == ("A chip", units)


def test_the_machine_is_described():
    machine = describe_machine()
    assert machine["cores"] >= 1
    assert machine["processor"]
    assert package_versions()["squeezebert"]
    assert peak_memory_mb() > 10
