"""`bench`: products that are counted rightly, limits, starts, and what is written and refused."""

from __future__ import annotations

import json
import shutil
from math import prod

import numpy as np
import pytest
import transformers

from squeezebert.benchmark.baselines import write_baseline, write_usual_export
from squeezebert.benchmark.latency import TimedFile, exported_files, made_up_inputs
from squeezebert.benchmark.named import write_named
from squeezebert.benchmark.roofline import Product, _model, bare_times, profile_file, read_profile
from squeezebert.benchmark.starting import measure_start
from squeezebert.cli import main
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.model import SqueezeBertConfig
from squeezebert.workflows.options import BenchOptions
from tiny_checkpoints import save_checkpoint, tiny_model
from typed import refused, run

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


def test_one_interrupted_run_does_not_count():
    def event(microseconds):
        told = {"op_name": "Tanh", "input_type_shape": [{"float": [8]}], "output_type_shape": [{"float": [8]}]}
        return {"cat": "Node", "name": "node_kernel_time", "dur": microseconds, "args": told}

    runs = [[event(10), event(20)] for _ in range(4)]
    runs[2] = [event(4000), event(20)]
    found = read_profile([one for run in runs for one in run], runs=4, skipped=1)
    assert found.kinds == {"Tanh": pytest.approx(0.03)}
    assert (found.products, found.small) == ({}, 0)


@pytest.mark.parametrize("texts", [4, 12])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_grouped_convolutions_are_products_of_their_groups(conventional, texts, precision):
    tokens, rows = 96, texts * 96
    profile = profile_file(conventional[precision], made_up_inputs(texts, tokens, 200), threads=1, runs=2)
    products = {one: count for one, count in profile.products.items() if one.weights}
    integer = precision == "int8"
    assert products == {
        Product(1, rows, 64, 64, integer, True): 2,  # the output projection of attention
        Product(1, rows, 16, 128, integer, True): 2 * 4,
        Product(1, rows, 128, 16, integer, True): 2 * 4,
    } | ({Product(1, rows, 32, 32, integer, True): 2 * 3 * 2} if rows * 32 * 32 * 2 >= 1_000_000 else {})


@pytest.fixture(scope="module")
def conventional(tmp_path_factory):
    """Grouped layers as the convolutions that transformers writes them."""
    sizes = {**SIZES, "embedding_size": 64, "intermediate_size": 512, "post_attention_groups": 1}
    model = transformers.SqueezeBertForSequenceClassification(transformers.SqueezeBertConfig(**sizes))
    return write_usual_export(model, tmp_path_factory.mktemp("usual"))


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
        # So small a model has no product that could be timed alone, and its operations are counted all the same
        assert (row["limit_ms"], row["share_of_limit"], row["weights_ms"]) == (None, None, 0)
        assert 0 < row["gigaoperations"] == row["untimed_gigaoperations"] < 0.01
    assert record["models"][f"{single.output} int8"]["kind"] == "exported"
    assert f"faster than {single.checkpoint} fp32" in printed
    assert (output / "bench.md").read_text().strip() in printed
    page = (output / "bench.html").read_text()
    assert page.count("<svg") == 2
    assert "share of limit" in page
    assert "<script" not in page
    assert main(told) == 1
    assert "holds results already" in capsys.readouterr().err


def test_a_limit_is_a_share_of_the_time(files, tmp_path, capsys):
    model = tiny_model(hidden_size=64, num_attention_heads=4, intermediate_size=512)
    folders = [save_checkpoint(tmp_path / name / "same$x^{$_b", model) for name in "ab"]
    told = ("bench", *folders, "--output", tmp_path / "out", "--lengths", "40", "--batch-sizes", "4", "--runs", "3")
    assert run(*told, "--no-starts") == 0
    record = json.loads((tmp_path / "out" / "bench.json").read_text())
    for row in record["rows"]:
        assert row["limit_ms"] >= row["weights_ms"] > 0
        assert row["share_of_limit"] == pytest.approx(row["limit_ms"] / row["median_ms"])
        assert row["gigaoperations"] > row["untimed_gigaoperations"] > 0
    page = (tmp_path / "out" / "bench.html").read_text()
    for name in "ab":  # two of one name are told apart
        assert f"<!-- {name}/same$x^{{$_b fp32 -->" in page.replace(r"\$", "$")
    assert f"written: {tmp_path / 'out' / 'bench.json'}, {tmp_path / 'out' / 'bench.md'}" in capsys.readouterr().out


def test_a_file_that_is_not_its_models_is_found_before_anything_is_timed(single, tmp_path, capsys):
    folder = shutil.copytree(single.output, tmp_path / "swapped")
    shutil.copyfile(folder / "onnx" / "model_quantized.onnx", folder / "onnx" / "model.onnx")
    assert "not the file that was exported" in refused(
        capsys, "bench", folder, "--lengths", 8, "--output", tmp_path / "bench"
    )
    broken = TimedFile(tmp_path / "none.onnx", ())
    with pytest.raises(FolderError, match="ended with 1"):
        measure_start(broken, threads=1, runs=1)


def test_an_encoder_is_measured_with_a_new_classifier_and_this_is_said(tmp_path, capsys):
    encoder = save_checkpoint(tmp_path / "encoder", tiny_model(num_hidden_layers=1).transformer)
    told = ("bench", encoder, "--output", tmp_path / "out", "--lengths", "8", "--runs", "1", "--no-starts")
    assert run(*told, "--no-roofline") == 0
    record = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert {one["kind"] for one in record["models"].values()} == {"encoder with a new classifier, our graph"}


def test_what_cannot_be_measured_is_refused(single, words, tmp_path, capsys):
    for told, reason in (
        (["nowhere"], "no exported folder or checkpoint there, and no architecture of that name"),
        ([str(single.output), str(single.output)], "named twice"),
        ([str(single.output), f"{single.output}/"], "named twice"),
        ([str(single.output), "--lengths", "8", "8"], "one is there twice"),
        (["bert-base", "--lengths", "513"], "bert-base reads 512 tokens at most"),
        ([str(words.checkpoint)], "a SqueezeBertForMaskedLM, and models that answer for whole texts"),
        ([str(single.output), "--output", str(single.checkpoint / "config.json" / "out")], "cannot be made in"),
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
@pytest.mark.parametrize("name", ["tinybert-4", "tinybert-4:usual", "mobilebert", "squeezebert:usual"])
def test_architectures_run(name, tmp_path):
    from squeezebert.benchmark.latency import measure_latency

    found = measure_latency(write_named(name, tmp_path), [16], runs=1)
    assert set(found) == {"fp32", "int8"}
