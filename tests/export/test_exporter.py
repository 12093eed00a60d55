"""From a checkpoint folder to an exported one: what is written, what is refused, what is never lost."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
import transformers

from squeezebert.export import exporter, int8
from squeezebert.export.exporter import MODEL_PATHS, ExportRefused, export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.export.quantize import POSITIONS
from squeezebert.files.errors import FolderError, OptionError, SqueezeBertError, TableError
from squeezebert.files.manifest import read_manifest
from squeezebert.model import SqueezeBertForQuestionAnswering, SqueezeBertForSequenceClassification
from squeezebert.model.configuration import GROUP_FIELDS
from squeezebert.runtime.predictor import load
from tiny_checkpoints import VOCABULARY, logits_of, save_checkpoint, texts, tiny_model, tiny_tokenizer

pytest_plugins = ["exported_folders"]

LAYOUT = {
    "config.json",
    "manifest.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "onnx/model.onnx",
    "onnx/model_quantized.onnx",
}


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def quick(single, monkeypatch):
    """Exports of the single-label checkpoint that take its graphs from the folder exported before."""

    def write(model, path, *rest, **options):
        path.parent.mkdir(exist_ok=True)
        shutil.copy(single.output / "onnx/model.onnx", path)

    monkeypatch.setattr(exporter, "write_graph", write)
    monkeypatch.setattr(
        int8,
        "quantize_graph",
        lambda _, target, *rest: shutil.copy(single.output / "onnx/model_quantized.onnx", target),
    )
    return single


@pytest.fixture
def wrong_int8(quick, monkeypatch):
    """The same, with an int8 file whose classifier answers the other way round."""

    def damage(source, target, *rest):
        proto = onnx.load(str(source))
        for initializer in proto.graph.initializer:
            if initializer.name.startswith("classifier"):
                values = -onnx.numpy_helper.to_array(initializer)
                initializer.CopyFrom(onnx.numpy_helper.from_array(values, initializer.name))
        onnx.save(proto, str(target))

    monkeypatch.setattr(int8, "quantize_graph", damage)
    return quick


def test_the_folder_is_laid_out_as_transformers_js_reads_it(single):
    assert files_of(single.output) == LAYOUT
    assert list(single.output.parent.iterdir()).count(single.output) == 1
    assert not [path for path in single.output.parent.iterdir() if path.name.startswith(".")]
    config = json.loads((single.output / "config.json").read_text())
    assert config["model_type"] == "squeezebert"
    assert config["architectures"] == ["SqueezeBertForSequenceClassification"]
    assert config["id2label"] == {"0": "calm", "1": "busy", "2": "other"}
    assert config["label2id"] == {"calm": 0, "busy": 1, "other": 2}
    assert config["problem_type"] == "single_label_classification"
    ids = transformers.AutoTokenizer.from_pretrained(single.output)("the train")["input_ids"]
    assert ids == tiny_tokenizer()("the train")["input_ids"]


def test_the_manifest_says_what_was_done(single):
    manifest = read_manifest(single.output)
    assert manifest == single.report.manifest
    assert (manifest.task, manifest.labels) == ("single_label", ("calm", "busy", "other"))
    assert (manifest.max_length, manifest.pair, manifest.token_types, manifest.temperature) == (40, False, True, 1.5)
    assert (manifest.engine, manifest.source) == ("onnxruntime", "checkpoint")
    assert manifest.files["fp32"].batch_invariant
    assert not manifest.files["int8"].batch_invariant
    assert {file.form for file in manifest.files.values()} == {"per_group_matmul"}
    assert {file.disabled_optimizers for file in manifest.files.values()} == {("SkipLayerNormFusion",)}
    assert {"squeezebert", "torch", "transformers", "onnx", "onnxruntime"} <= set(manifest.versions)
    fp32, int8 = manifest.verification["fp32"], manifest.verification["int8"]
    assert (fp32.rows, fp32.source, fp32.agreement) == (40, "evaluation rows", 1.0)
    assert fp32.max_difference < 1e-5
    assert fp32.accuracy == pytest.approx(0.9)  # four rows carry another label
    assert fp32.accuracy_interval[0] < 0.9 < fp32.accuracy_interval[1]
    assert int8.agreement >= 0.98
    assert int8.drop is not None
    assert "rows would decide it" in single.report.warnings[0]
    assert len(manifest.samples) == 8
    assert all(set(sample.expected) == {"fp32", "int8"} for sample in manifest.samples)


@pytest.mark.parametrize("task", ["single", "multi", "regression"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_folder_repeats_what_was_verified(task, precision, request):
    exported = request.getfixturevalue(task)
    model = load(exported.output, threads=1, precision=precision)
    found = model.predict(list(exported.report.texts))
    verified = exported.report.probabilities[precision]
    if model.task == "regression":
        assert [p.value for p in found] == verified[:, 0].tolist()
    else:
        assert [list(p.probabilities.values()) for p in found] == verified.tolist()
    assert model.self_check().passed


@pytest.mark.parametrize("task", ["single", "multi", "regression"])
def test_torch_is_repeated(task, request):
    exported = request.getfixturevalue(task)
    items = list(exported.report.texts)[:10]
    manifest = exported.report.manifest
    logits = load(exported.output, threads=1, precision="fp32").logits(items)
    expected = logits_of(exported.model, items, manifest.max_length) / manifest.temperature
    assert logits == pytest.approx(expected, abs=1e-5)


def test_several_labels_and_numbers_carry_over(multi, regression):
    several, number = read_manifest(multi.output), read_manifest(regression.output)
    assert (several.task, several.pair, several.thresholds) == ("multi_label", True, (0.3, 0.5, 0.7))
    assert several.verification["fp32"].metric == "mean share of labels right"
    assert (number.task, number.labels, number.pair, number.max_length) == ("regression", (), None, 48)
    assert number.verification["fp32"].metric == "Pearson correlation"
    assert number.verification["fp32"].accuracy > 0.9
    for folder, problem in ((multi.output, "multi_label_classification"), (regression.output, "regression")):
        assert json.loads((folder / "config.json").read_text())["problem_type"] == problem


def test_a_bert_checkpoint_is_the_case_of_one_group(tmp_path):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
        id2label={0: "no", 1: "yes"},
        label2id={"no": 0, "yes": 1},
        initializer_range=0.2,
    )
    bert = transformers.BertForSequenceClassification(config).eval()
    checkpoint = save_checkpoint(tmp_path / "bert", bert)
    steps = []
    report = export_checkpoint(checkpoint, tmp_path / "out", ExportOptions(precision="fp32"), progress=steps.append)
    assert files_of(tmp_path / "out") == LAYOUT - {"onnx/model_quantized.onnx"}
    manifest = report.manifest
    assert (manifest.labels, manifest.task, manifest.max_length) == (("no", "yes"), "single_label", 32)
    assert manifest.verification["fp32"].reason == "accuracy not checked: no evaluation rows"
    assert manifest.verification["fp32"].source == "built-in text"
    assert steps[0] == "reading the checkpoint"
    model = load(tmp_path / "out")
    assert model.precision == "fp32"
    found = model.logits(texts(5))
    with torch.no_grad():
        for text, logits in zip(texts(5), found, strict=True):
            encoded = tiny_tokenizer()(text, truncation=True, max_length=32, return_tensors="pt")
            assert logits == pytest.approx(bert(**encoded).logits[0].numpy(), abs=1e-5)


def test_the_same_checkpoint_gives_the_same_files(regression, tmp_path):
    export_checkpoint(regression.checkpoint, tmp_path / "again", ExportOptions("fp32", threads=1))
    first, second = read_manifest(regression.output), read_manifest(tmp_path / "again")
    assert first.files["fp32"] == second.files["fp32"]
    assert first.verification["fp32"] == second.verification["fp32"]


def test_int8_alone(quick, tmp_path):
    report = export_checkpoint(quick.checkpoint, tmp_path / "out", ExportOptions(precision="int8"))
    assert files_of(tmp_path / "out") == LAYOUT - {"onnx/model.onnx"}
    assert set(report.manifest.samples[0].expected) == {"int8"}
    assert load(tmp_path / "out", 1).self_check().passed


def test_a_refused_int8_leaves_fp32_and_says_so(wrong_int8, tmp_path):
    with pytest.raises(ExportRefused, match="with fp32 only") as caught:
        export_checkpoint(wrong_int8.checkpoint, tmp_path / "out")
    assert files_of(tmp_path / "out") == LAYOUT - {"onnx/model_quantized.onnx"}
    report = caught.value.report
    assert report.output == tmp_path / "out"
    assert "agreement with fp32" in report.refused
    manifest = read_manifest(tmp_path / "out")
    assert set(manifest.files) == {"fp32"}
    assert manifest.verification["int8"].refused == report.refused
    assert not manifest.verification["int8"].forced
    assert load(tmp_path / "out", 1).self_check().passed


def test_a_refused_int8_alone_writes_nothing(wrong_int8, tmp_path):
    with pytest.raises(ExportRefused, match="Nothing was written") as caught:
        export_checkpoint(wrong_int8.checkpoint, tmp_path / "out", ExportOptions(precision="int8"))
    assert caught.value.report is None
    assert not list(tmp_path.iterdir())


def test_force_is_remembered(wrong_int8, tmp_path):
    report = export_checkpoint(wrong_int8.checkpoint, tmp_path / "out", ExportOptions(force=True))
    assert files_of(tmp_path / "out") == LAYOUT
    found = read_manifest(tmp_path / "out").verification["int8"]
    assert found.forced
    assert "agreement" in found.refused
    assert any("by force" in warning for warning in report.warnings)


@pytest.mark.parametrize("broken", ["fp32", "int8"])
def test_nan_is_never_forced(quick, tmp_path, monkeypatch, broken):
    def poison(source, target, *rest):
        proto = onnx.load(str(quick.output / "onnx/model.onnx"))
        for initializer in proto.graph.initializer:
            if initializer.name == "classifier.bias":
                values = np.full(3, np.nan, dtype=np.float32)
                initializer.CopyFrom(onnx.numpy_helper.from_array(values, initializer.name))
        target.parent.mkdir(exist_ok=True)
        onnx.save(proto, str(target))

    if broken == "fp32":
        monkeypatch.setattr(exporter, "write_graph", lambda model, path, *rest, **options: poison(None, path))
    else:
        monkeypatch.setattr(int8, "quantize_graph", poison)
    with pytest.raises(ExportRefused, match="NaN"):
        export_checkpoint(quick.checkpoint, tmp_path / "out", ExportOptions(force=True))
    assert (tmp_path / "out").exists() == (broken == "int8")
    if broken == "int8":
        assert set(read_manifest(tmp_path / "out").files) == {"fp32"}


def test_a_graph_that_is_not_the_checkpoint_is_refused(quick, tmp_path):
    other = save_checkpoint(tmp_path / "other", tiny_model(seed=7))
    with pytest.raises(ExportRefused, match="does not repeat the checkpoint"):
        export_checkpoint(other, tmp_path / "out", ExportOptions(force=True))
    assert not (tmp_path / "out").exists()


def test_an_output_is_replaced_only_when_asked_and_only_if_exported(quick, tmp_path):
    out = tmp_path / "out"
    export_checkpoint(quick.checkpoint, out)
    with pytest.raises(FolderError, match="overwrite"):
        export_checkpoint(quick.checkpoint, out)
    (out / "onnx" / "note").write_text("mine")
    with pytest.raises(FolderError, match=r"holds onnx/note beside an exported model"):
        export_checkpoint(quick.checkpoint, out, ExportOptions(overwrite=True))
    assert (out / "onnx" / "note").read_text() == "mine"
    (out / "onnx" / "note").unlink()
    (out / ".DS_Store").write_text("a file browser's")
    export_checkpoint(quick.checkpoint, out, ExportOptions(overwrite=True))
    assert files_of(out) == LAYOUT
    for other in (tmp_path / "other", tmp_path / "file"):
        if other.name == "other":
            other.mkdir()
            (other / "precious").write_text("mine")
        else:
            other.write_text("mine")
        with pytest.raises((FolderError, NotADirectoryError), match="not an exported folder"):
            export_checkpoint(quick.checkpoint, other, ExportOptions(overwrite=True))
    assert (tmp_path / "other" / "precious").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    export_checkpoint(quick.checkpoint, tmp_path / "empty")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "other", "file", "empty"}


def test_a_failure_keeps_the_old_output(quick, tmp_path, monkeypatch):
    out = tmp_path / "out"
    export_checkpoint(quick.checkpoint, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    monkeypatch.setattr(int8, "quantize_graph", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_checkpoint(quick.checkpoint, out, ExportOptions(overwrite=True))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == [out]


def test_rows_come_from_the_caller_or_the_checkpoint(quick, broken, tmp_path):
    rows = quick.rows[:5]
    (broken / "evaluation.jsonl").write_text("\n\n".join(json.dumps(row) for row in quick.rows[:7]))
    own = export_checkpoint(broken, tmp_path / "a", ExportOptions(force=True))
    given = export_checkpoint(broken, tmp_path / "b", ExportOptions(force=True), examples=rows)
    assert [report.manifest.verification["fp32"].rows for report in (own, given)] == [7, 5]
    assert given.texts == tuple(row["text"] for row in rows)


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"text": 3}, "needs a `text`"),
        ({"text": "a", "text_pair": 3}, "text_pair"),
        ({"text": "a", "text_pair": "b", "label": "calm"}, "single texts"),
        ({"text": "a", "label": "loud"}, "label 'loud' is none of the model's: calm, busy, other"),
        ({"text": "a", "label": ["calm"]}, "none of the model's"),
        ([], "needs a `text`"),
    ],
)
def test_unusable_rows_are_named(broken, tmp_path, row, cause):
    with pytest.raises(TableError, match="example 1: .*" + cause):
        export_checkpoint(broken, tmp_path / "out", examples=[{"text": "fine"}, row])
    (broken / "evaluation.jsonl").write_text(json.dumps({"text": "fine"}) + "\n" + json.dumps(row))
    with pytest.raises(TableError, match=r"evaluation\.jsonl:2: .*" + cause):
        export_checkpoint(broken, tmp_path / "out")
    (broken / "evaluation.jsonl").write_text("{")
    with pytest.raises(TableError, match=r"evaluation\.jsonl:1: not JSON"):
        export_checkpoint(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_odd_evaluation_text_is_compared_too(quick, tmp_path):
    rows = [{"text": text, "label": "calm"} for text in ("", "\ud800", "\0", "🙂", "the " * 5000, "x" * 50_000)]
    report = export_checkpoint(quick.checkpoint, tmp_path / "out", ExportOptions(force=True), examples=rows)
    assert report.manifest.verification["fp32"].rows == 6


def test_answers_without_a_correlation_are_not_refused_for_it(regression, tmp_path):
    for rows in ([{"text": "a boat", "label": 1.0}], [{"text": "a boat", "label": float(i)} for i in range(4)]):
        options = ExportOptions(threads=1, overwrite=True)
        report = export_checkpoint(regression.checkpoint, tmp_path / "out", options, examples=rows)
        assert report.manifest.verification["fp32"].agreement == 1.0
        assert any("agreement with fp32 not checked" in warning for warning in report.warnings)
        assert report.refused is None


@pytest.fixture
def broken(single, tmp_path):
    return shutil.copytree(single.checkpoint, tmp_path / "checkpoint")


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (shutil.rmtree, "no such folder"),
        (lambda c: (c / "config.json").unlink(), "no config.json"),
        (lambda c: (c / "config.json").write_text("{"), "damaged"),
        (lambda c: edit_json(c / "config.json", model_type="roberta"), "model type 'roberta'"),
        (lambda c: (c / "model.safetensors").unlink(), "no weights"),
        (lambda c: (c / "model.safetensors").write_bytes(b"x" * 99), "cannot be loaded"),
        (lambda c: (c / "tokenizer.json").unlink(), "no tokenizer"),
        (lambda c: (c / "tokenizer.json").write_text("{}"), "tokenizer cannot be loaded"),
        (lambda c: (c / "squeezebert.json").write_text("[]"), "no format version"),
        (lambda c: edit_json(c / "squeezebert.json", format=99), "update it"),
        (lambda c: edit_json(c / "squeezebert.json", task="poetry"), "task 'poetry'"),
        (lambda c: edit_json(c / "squeezebert.json", labels=["a", "b"]), "3 outputs"),
        (lambda c: edit_json(c / "squeezebert.json", labels=["a", "b", "b"]), "same name"),
        (lambda c: edit_json(c / "squeezebert.json", calibration={"temperature": -1}), "temperature"),
        (lambda c: edit_json(c / "squeezebert.json", thresholds=[0.5]), "1 thresholds"),
        (lambda c: edit_json(c / "squeezebert.json", task="regression"), "3 outputs"),
    ],
)
def test_unusable_checkpoints_are_refused(broken, tmp_path, damage, cause):
    damage(broken)
    with pytest.raises(FolderError, match=cause) as caught:
        export_checkpoint(broken, tmp_path / "out")
    assert str(broken) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_other_heads_and_half_models_are_refused(single, tmp_path):
    config = tiny_model().config
    head = save_checkpoint(tmp_path / "head", SqueezeBertForQuestionAnswering(config))
    with pytest.raises(FolderError, match="only classifiers of texts and tokens, masked"):
        export_checkpoint(head, tmp_path / "out")
    edit_json(head / "config.json", architectures=None)
    with pytest.raises(FolderError, match="the weights lack classifier"):
        export_checkpoint(head, tmp_path / "out")
    with pytest.raises(FolderError, match="exported already"):
        export_checkpoint(single.output, tmp_path / "out")


def test_weights_with_nan_are_refused(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.classifier.weight[0, 0] = float("nan")
    with pytest.raises(FolderError, match=r"classifier\.weight hold NaN"):
        export_checkpoint(save_checkpoint(tmp_path / "checkpoint", model), tmp_path / "out")


def test_a_tokenizer_that_the_runtime_would_read_differently_is_refused(quick, broken, tmp_path):
    edit_json(broken / "tokenizer_config.json", truncation_side="left")
    rows = [{"text": "late " + "the train " * 60, "label": "calm"}]
    with pytest.raises(SqueezeBertError, match="other tokens than transformers"):
        export_checkpoint(broken, tmp_path / "out", examples=rows)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    small = tiny_model(vocab_size=VOCABULARY - 3)
    with pytest.raises(FolderError, match="do not belong together"):
        export_checkpoint(save_checkpoint(tmp_path / "checkpoint", small), tmp_path / "out")


def test_torch_threads_and_log_levels_are_left_as_they_were(quick, tmp_path):
    before = torch.get_num_threads(), transformers.logging.get_verbosity()
    export_checkpoint(quick.checkpoint, tmp_path / "out", ExportOptions(threads=1))
    assert (torch.get_num_threads(), transformers.logging.get_verbosity()) == before


def test_labels_default_to_the_configuration(tmp_path):
    model = tiny_model(num_labels=2)
    model.config.problem_type = "multi_label_classification"
    checkpoint = save_checkpoint(tmp_path / "checkpoint", model)
    from squeezebert.export.checkpoint import read_checkpoint

    found = read_checkpoint(checkpoint)
    assert (found.task, found.labels, found.pair) == ("multi_label", ("LABEL_0", "LABEL_1"), None)
    assert isinstance(found.model, SqueezeBertForSequenceClassification)


def test_word_embeddings_in_4_bits_make_a_smaller_file_that_answers_alike(single, tmp_path, caplog):
    report = export_checkpoint(
        single.checkpoint, tmp_path / "out", ExportOptions(threads=1, embeddings="int4", force=True)
    )
    assert "quantize" not in caplog.text
    file = report.manifest.files["int8"]
    assert file.quantisation.endswith("word embeddings in 4 bits, a scale for each 64 channels")
    assert file.bytes < single.report.manifest.files["int8"].bytes
    agree = report.probabilities["int8"].argmax(axis=1) == report.probabilities["fp32"].argmax(axis=1)
    assert agree.mean() >= 0.9
    assert np.abs(report.probabilities["int8"] - single.report.probabilities["int8"]).max() > 0


@pytest.mark.parametrize("task", ["single", "multi", "regression", "encoder", "words", "marker"])
def test_all_that_an_export_writes_may_be_replaced_by_the_next(task, request):
    exported = request.getfixturevalue(task)
    folder = exported.folder if task == "encoder" else exported.output
    assert files_of(folder) <= exporter._WRITTEN


def test_positions_are_kept_in_half_of_the_bits(single):
    kinds = {}
    for precision, path in MODEL_PATHS.items():
        graph = onnx.load(single.output / path).graph
        (kinds[precision],) = (one.data_type for one in graph.initializer if one.name == POSITIONS)
    assert kinds == {"fp32": onnx.TensorProto.FLOAT, "int8": onnx.TensorProto.FLOAT16}


def test_options_that_would_do_nothing_are_refused():
    for told in ({"embeddings": "int4"}, {"activations": "static"}, {"spare_blocks": 2}):
        with pytest.raises(OptionError, match="serves the int8 file"):
            ExportOptions(precision="fp32", **told)
    with pytest.raises(OptionError, match="serves static activations alone"):
        ExportOptions(ranges="minmax")


def test_odd_widths_in_4_bits_are_refused_before_anything_is_written(tmp_path):
    sizes = {"hidden_size": 33, "num_attention_heads": 3, "intermediate_size": 66, **dict.fromkeys(GROUP_FIELDS, 1)}
    odd = save_checkpoint(tmp_path / "odd", tiny_model(**sizes))
    with pytest.raises(OptionError, match="33 channels cannot be packed"):
        export_checkpoint(odd, tmp_path / "out", ExportOptions(embeddings="int4"), progress=_nothing_is_written)


def _nothing_is_written(step):
    assert "fp32" not in step


def test_embeddings_are_named_rightly():
    with pytest.raises(OptionError, match="give one of int8, int4"):
        ExportOptions(embeddings="int2")
