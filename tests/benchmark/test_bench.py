"""`bench`: products that are counted rightly, limits, starts, and what is written and refused."""

from __future__ import annotations

import json
from math import prod

import numpy as np
import pytest

from squeezebert.benchmark.baselines import write_baseline
from squeezebert.benchmark.latency import exported_files, made_up_inputs
from squeezebert.benchmark.named import write_named
from squeezebert.benchmark.roofline import Product, _model, bare_times, profile_file, read_profile
from squeezebert.benchmark.starting import measure_start
from squeezebert.cli import main
from squeezebert.files.errors import OptionError
from squeezebert.model import SqueezeBertConfig
from squeezebert.workflows.options import BenchOptions

pytest_plugins = ["exported_folders"]
SIZES = {
    "vocab_size": 200,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "q_groups": 2,
    "k_groups": 2,
    "v_groups": 2,
    "intermediate_groups": 4,
    "output_groups": 4,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_baseline(SqueezeBertConfig(**SIZES), tmp_path_factory.mktemp("bench"))


def test_a_profile_counts_the_products_of_the_graph(files):
    texts, tokens = 2, 96
    profile = profile_file(files["fp32"], made_up_inputs(texts, tokens, 200), threads=1, runs=3)
    rows = texts * tokens
    # The last block computes but the first token of each text, its keys and values apart
    wanted = {
        Product(1, rows, 32, 32, False, True): 2 * 3 + 2 * 2,  # query, key, value in two groups; then key and value
        Product(1, rows, 64, 64, False, True): 1,
        Product(1, rows, 16, 64, False, True): 4,
        Product(1, rows, 64, 16, False, True): 4,
        Product(texts * 4, tokens, 16, tokens, False, False): 1,
        Product(texts * 4, tokens, tokens, 16, False, False): 1,
    }
    large = {product: count for product, count in profile.products.items() if product.operations >= 1_000_000}
    expected = {product: count for product, count in wanted.items() if product.operations >= 1_000_000}
    assert expected
    assert {product: large.get(product) for product in expected} == expected
    assert sum(profile.kinds.values()) > 0
    assert list(profile.kinds.values()) == sorted(profile.kinds.values(), reverse=True)


def test_int8_products_are_integers_with_weights(files):
    profile = profile_file(files["int8"], made_up_inputs(4, 128, 200), threads=1, runs=2)
    assert any(product.integer and product.weights for product in profile.products)
    assert any(not product.integer and not product.weights for product in profile.products)


def test_the_first_runs_of_a_profile_are_left_out():
    def event(microseconds):
        told = {
            "op_name": "Gemm",
            "input_type_shape": [{"float": [128, 96]}],
            "output_type_shape": [{"float": [128, 64]}],
        }
        return {"cat": "Node", "name": "node_kernel_time", "dur": microseconds, "args": told}

    found = read_profile([event(9000), event(9000), event(1000), event(3000)], runs=4, skipped=2)
    assert found.kinds == {"Gemm": 2.0}
    assert found.products == {Product(1, 128, 96, 64, False, True): 1}


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize(("batch", "weights"), [(1, True), (1, False), (3, False)])
def test_a_bare_product_computes_what_it_says(integer, batch, weights):
    import onnxruntime

    product = Product(batch, 5, 6, 7, integer, weights)
    session = onnxruntime.InferenceSession(_model(product).SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    assert [prod(given.shape) for given in inputs] == [batch * 30, batch * 42][: 1 if weights else 2]
    kinds = {"tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(float)": np.float32}
    made = session.run(None, {given.name: np.ones(given.shape, kinds[given.type]) for given in inputs})[0]
    assert made.shape[-2:] == (5, 7)
    if not weights:
        assert (made == 6).all()
    assert bare_times([product], threads=1, runs=1)[product] > 0


def test_a_start_is_of_a_new_process_without_torch(files):
    start = measure_start(files["int8"], threads=1, runs=1)
    assert 0.05 < start.seconds < 60
    assert 20e6 < start.peak_bytes < 400e6
    assert not start.needs_torch


def test_an_exported_folder_answers_a_text_when_it_starts(single, encoder):
    for folder in (single.output, encoder.folder):
        file = exported_files(folder, "x")["x fp32"]
        assert not measure_start(file, threads=1, folder=folder, precision="fp32", runs=1).needs_torch


def test_the_command_measures_folders_checkpoints_and_writes_a_page(single, tmp_path, capsys):
    output = tmp_path / "bench"
    told = [
        "bench",
        str(single.output),
        str(single.checkpoint),
        "--output",
        str(output),
        "--runs",
        "2",
        "--burst",
        "1",
    ]
    told += ["--lengths", "8", "24", "--batch-sizes", "1", "2", "--threads", "1", "--profile", "--no-starts"]
    assert main([*told, "--baseline", str(single.checkpoint)]) == 0
    printed = capsys.readouterr().out
    record = json.loads((output / "bench.json").read_text())
    assert len(record["rows"]) == 2 * 2 * 2 * 2
    for row in record["rows"]:
        assert row["low_ms"] <= row["median_ms"] <= row["high_ms"]
        if row["model"] == str(single.checkpoint):
            assert row["faster"][row["precision"]] == 1.0
        assert row["kinds_ms"]
        assert row["limit_ms"] >= row["weights_ms"] >= 0
    assert record["models"][f"{single.output} int8"]["kind"] == "exported"
    assert f"faster than {single.checkpoint} fp32" in printed
    assert (output / "bench.md").read_text().strip() in printed
    page = (output / "bench.html").read_text()
    assert page.count("<svg") == 2
    assert "<script" not in page
    assert main(told) == 1
    assert "holds results already" in capsys.readouterr().err


def test_what_cannot_be_measured_is_refused(single, tmp_path, capsys):
    for told, reason in (
        (["nowhere"], "no exported folder or checkpoint there, and no architecture of that name"),
        ([str(single.output), str(single.output)], "named twice"),
        ([str(single.output), "--lengths", "100"], "reads 40 tokens at most"),
        ([str(single.output), "--baseline", "bert-base"], "not among the models"),
        ([str(single.output), "--threads", "0"], "expected numbers from 1"),
        ([str(single.output), "--output", str(single.checkpoint)], "is not empty and holds other things"),
    ):
        output = [] if "--output" in told else ["--output", str(tmp_path / "bench")]
        assert main(["bench", *told, *output]) == 1
        assert reason in capsys.readouterr().err
    assert not (tmp_path / "bench").exists()
    with pytest.raises(OptionError, match="name at least one model"):
        BenchOptions([])


def test_an_architecture_of_no_such_name_is_refused(tmp_path):
    with pytest.raises(OptionError, match="bert-bass: no folder, and no architecture: squeezebert, bert-base"):
        write_named("bert-bass", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tinybert-4", "tinybert-4:usual", "mobilebert"])
def test_architectures_run(name, tmp_path):
    from squeezebert.benchmark.latency import measure_latency

    found = measure_latency(write_named(name, tmp_path), [16], runs=1)
    assert set(found) == {"fp32", "int8"}
