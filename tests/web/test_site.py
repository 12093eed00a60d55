"""The folder that `squeezebert web` writes, and where its engine comes from. The engine's files are stand-ins here."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import stat
from dataclasses import asdict
from pathlib import Path

import pytest

import squeezebert.web
from squeezebert.cli import main
from squeezebert.export.exporter import export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.files.errors import DependencyError, FolderError, OptionError
from squeezebert.runtime.predictor import load
from squeezebert.web.engine import CPU_FILES, GPU_FILES, engine_versions, find_engine
from squeezebert.web.site import POLICY, TOKEN_CHECKS, write_site
from stand_ins import stand_in_engine
from tiny_checkpoints import save_checkpoint, tiny_model

pytest_plugins = ["exported_folders"]

ROOM = Path(squeezebert.web.__file__).parent


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return stand_in_engine(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def site(single, engine, tmp_path_factory):
    place = tmp_path_factory.mktemp("written") / "site"
    write_site(single.output, place, engine, title="Calm & <busy>")
    return place


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def command(capsys, *arguments):
    status = main(["web", *map(str, arguments)])
    return status, capsys.readouterr().err


def test_the_page_knows_what_the_runtime_knows(site, single):
    facts = json.loads((site / "site.json").read_text())
    model = load(single.output, 1)
    manifest = model.manifest
    assert facts["labels"] == list(manifest.labels) and facts["task"] == manifest.task
    assert facts["max_length"] == manifest.max_length and facts["calibrated_logits"] == manifest.calibrated_logits
    assert facts["layouts"]["pair"] == asdict(model.tokenizer.pair) | {"types": [0, 1]} | {
        name: [list(part) for part in getattr(model.tokenizer.pair, name)] for name in ("before", "between", "after")
    }
    for precision, file in manifest.files.items():
        assert facts["files"][precision]["sha256"] == file.sha256 == digest(site / facts["files"][precision]["path"])
    checked = [check["text"] for check in facts["token_checks"]]
    assert checked[: len(TOKEN_CHECKS)] == list(TOKEN_CHECKS)
    for token in json.loads((site / "model/tokenizer.json").read_text())["added_tokens"]:
        assert any(f"a{token['content']}b" in text for text in checked)
    assert all(check["ids"] == model.tokenizer.plain_ids(check["text"]) for check in facts["token_checks"])
    assert facts["samples"] and all(set(one["expected"]) == {"fp32", "int8"} for one in facts["samples"])


def test_the_page_holds_no_script_and_no_address_of_another_server(site):
    page = (site / "index.html").read_text()
    assert f'content="{POLICY}"'.replace("'", "&#x27;") in page
    assert "<title>Calm &amp; &lt;busy&gt;</title>" in page and "{{" not in page
    assert re.findall(r"<script[^>]*>[^<]", page) == [] and " style=" not in page and " onclick=" not in page
    for path in [*site.glob("*.js"), *site.glob("*.css"), site / "index.html"]:
        assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+", path.read_text()) == [], path.name
    assert "unsafe-inline" not in POLICY and "'unsafe-eval'" not in POLICY and "default-src 'none'" in POLICY


def test_the_service_worker_keeps_every_file_once(site):
    worker = (site / "sw.js").read_text()
    assert "{{" not in worker
    shell, optional, files, needed = (
        json.loads(re.search(rf"const {name} = (.*?);", worker)[1])
        for name in ("SHELL", "OPTIONAL", "FILES", "NEEDED")
    )
    assert {name: digest(site / name) for name in shell} == shell
    assert set(optional) == {f"engine/{name}" for name in GPU_FILES.values() if not name.endswith(".wasm")}
    assert {path for path in files if path not in needed} == {path for path in files if "asyncify" in path}
    kept = {path.split("?")[0] for path in files}
    for path in files:
        name, _, checksum = path.partition("?sha256=")
        assert digest(site / name) == checksum
    everything = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert not kept & set(shell)
    assert kept | set(shell) == everything - {"sw.js", "_headers", "engine/LICENCES.txt"}


def test_equal_pages_have_equal_versions_and_others_not(single, engine, tmp_path):
    first = write_site(single.output, tmp_path / "a", engine, title="One")
    again = write_site(single.output, tmp_path / "b", engine, title="One")
    titled = write_site(single.output, tmp_path / "c", engine, title="Two")
    alone = write_site(single.output, tmp_path / "d", engine, title="One", precisions=("int8",))
    other = tmp_path / "engine"
    shutil.copytree(engine, other)
    (other / next(name for name in CPU_FILES if name.endswith(".wasm"))).write_bytes(b"another")
    changed = write_site(single.output, tmp_path / "e", other, title="One")
    versions = [one.version for one in (first, titled, alone, changed)]
    assert first.version == again.version and len(set(versions)) == 4
    assert set(alone.bytes) == {"page and engine", "int8", "engine for WebGPU"}
    assert sum(alone.bytes.values()) <= sum(p.stat().st_size for p in (tmp_path / "d").rglob("*") if p.is_file())


def test_without_webgpu_its_engine_stays_out(single, engine, tmp_path):
    site = write_site(single.output, tmp_path / "site", engine, webgpu=False)
    assert set(site.bytes) == {"page and engine", "fp32", "int8"}
    assert not [path for path in (tmp_path / "site" / "engine").iterdir() if path.name in GPU_FILES.values()]
    assert json.loads((tmp_path / "site" / "site.json").read_text())["engine"]["gpu"] is None


def test_what_is_there_is_left_alone(single, engine, tmp_path, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    arguments = (single.output, "--engine-dir", engine, "--overwrite", "--output")
    status, told = command(capsys, *arguments, mine)
    assert status == 1 and "is not a page of ours" in told and (mine / "thesis.txt").exists()
    assert command(capsys, *arguments, tmp_path / "site")[0] == 0
    status, told = command(capsys, single.output, "--engine-dir", engine, "--output", tmp_path / "site")
    assert status == 1 and "--overwrite it" in told
    assert command(capsys, *arguments, tmp_path / "site")[0] == 0


def test_a_page_with_other_files_beside_it_is_not_replaced(single, engine, tmp_path, capsys):
    arguments = (single.output, "--engine-dir", engine, "--overwrite", "--output")
    site = tmp_path / "site"
    assert command(capsys, *arguments, site)[0] == 0
    for name, told_of in (
        ("CNAME",) * 2,
        ("model/notes.txt",) * 2,
        (".git/config", ".git"),
        ("other/index.html", "other"),
    ):
        mine = site / name
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine")
        status, told = command(capsys, *arguments, site)
        assert status == 1 and f"site: {told_of} is no part of the page" in told and mine.read_text() == "mine"
        mine.unlink()
        if told_of != name:
            mine.parent.rmdir()
    assert command(capsys, *arguments, site)[0] == 0
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "site.json").write_text('{"format": 1}')
    status, told = command(capsys, *arguments, foreign)
    assert status == 1 and "is not a page of ours" in told and len(list(foreign.iterdir())) == 1


def test_a_wrong_model_is_named_before_anything_is_fetched(npm, tmp_path, capsys):
    status, told = command(capsys, tmp_path / "nope", "--output", tmp_path / "site")
    assert status == 1 and "nope" in told and "npm" not in told


def test_a_disk_that_is_full_is_told_of_the_output(single, engine, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "another")

    monkeypatch.setattr("squeezebert.web.site.copy_engine", full)
    status, told = command(capsys, single.output, "--engine-dir", engine, "--output", tmp_path / "site")
    assert status == 1 and f"{tmp_path / 'site'}: cannot be written (No space left on device)" in told
    assert list(tmp_path.iterdir()) == []

    def unreadable(*_):
        raise OSError(errno.EACCES, "Permission denied", "another")

    # What cannot be read is not laid at the output's door
    monkeypatch.setattr("squeezebert.web.site.copy_engine", unreadable)
    status, told = command(capsys, single.output, "--engine-dir", engine, "--output", tmp_path / "site")
    assert status == 1 and "another" in told and "cannot be written" not in told


def test_a_tokenizer_that_no_page_follows_for_sure_is_told(single, engine, tmp_path, monkeypatch):
    monkeypatch.setattr("squeezebert.web.site.character_table", lambda path: None)
    told = []
    write_site(single.output, tmp_path / "site", engine, report=told.append)
    assert any("warning: " in line and "otherwise than BERT" in line for line in told)


def test_the_command_says_what_visitors_load_and_what_comes_next(single, engine, tmp_path, capsys):
    status, told = command(capsys, single.output, "--output", tmp_path / "a site", "--engine-dir", engine)
    assert status == 0
    assert "fp32: 0." in told and "int8: 0." in told
    assert f"python -m http.server --directory '{tmp_path / 'a site'}' 8080" in told


def test_models_that_give_no_answer_are_refused(encoder, words, marker, single, engine, tmp_path):
    with pytest.raises(FolderError, match="an encoder, which gives no labels"):
        write_site(encoder.folder, tmp_path / "site", engine)
    for model in (words, marker):
        with pytest.raises(FolderError, match="gives a text no labels"):
            write_site(model.output, tmp_path / "site", engine)
    with pytest.raises(FolderError, match=r"export .* first"):
        write_site(single.checkpoint, tmp_path / "site", engine)
    damaged = tmp_path / "damaged"
    shutil.copytree(single.output, damaged)
    (damaged / "onnx/model.onnx").write_bytes(b"x")
    with pytest.raises(FolderError, match="not the file that was exported"):
        write_site(damaged, tmp_path / "site", engine)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged"]


def test_a_precision_that_is_not_there_is_named(single, engine, tmp_path):
    folder = tmp_path / "fp32"
    export_checkpoint(single.checkpoint, folder, ExportOptions(threads=1, precision="fp32"))
    with pytest.raises(OptionError, match=r"--precision int8: .* holds fp32"):
        write_site(folder, tmp_path / "site", engine, precisions=("int8",))
    assert set(write_site(folder, tmp_path / "site", engine).bytes) == {
        "page and engine",
        "fp32",
        "engine for WebGPU",
    }


def test_labels_of_any_characters_are_kept(engine, tmp_path):
    labels = ["</script><b>", "שלום 🙂", 'a "quote"\n', "half \ud83d"]
    about = {"task": "single_label", "labels": labels, "max_length": 40}
    about["text_columns"] = {"text": "text", "text_pair": None}
    checkpoint = save_checkpoint(tmp_path / "checkpoint", tiny_model(num_labels=4), about)
    export_checkpoint(checkpoint, tmp_path / "exported", ExportOptions(threads=1, precision="fp32", force=True))
    write_site(tmp_path / "exported", tmp_path / "site", engine, title="half \ud83d")
    facts = json.loads((tmp_path / "site" / "site.json").read_text(encoding="utf-8"))
    assert facts["labels"][:3] == labels[:3] and facts["labels"][3].startswith("half ")


def test_the_lock_file_pins_what_the_page_runs_on_and_names_no_server():
    lock = json.loads((ROOM / "package-lock.json").read_text())
    for name, version in engine_versions().items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
        assert lock["packages"][f"node_modules/{name}"]["version"] == version
    for path, one in lock["packages"].items():
        assert path == "" or (one["integrity"].startswith("sha512-") and "resolved" not in one)


def test_an_engine_of_another_version_or_not_whole_is_refused(engine, tmp_path):
    with pytest.raises(FolderError, match=r"no @huggingface/tokenizers there; make it with: npm install @hugging"):
        find_engine(tmp_path, print)
    other = tmp_path / "other"
    shutil.copytree(engine, other)
    about = other / "onnxruntime-web" / "package.json"
    about.write_text(json.dumps({"version": "1.0.0"}))
    with pytest.raises(FolderError, match=r"onnxruntime-web 1\.0\.0, and the page runs on"):
        find_engine(other, print)
    about.write_text("{")
    with pytest.raises(FolderError, match="damaged"):
        find_engine(other, print)
    shutil.copyfile(engine / "onnxruntime-web" / "package.json", about)
    (other / next(iter(GPU_FILES))).unlink()
    with pytest.raises(FolderError, match="is missing; make it with"):
        find_engine(other, print)


def test_a_folder_above_node_modules_will_do(engine, tmp_path):
    shutil.copytree(engine, tmp_path / "node_modules")
    assert find_engine(tmp_path, print) == tmp_path / "node_modules"


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A function that puts a shell script in the place of npm; without it there is no npm at all."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "cp", "mkdir", "cat"):
        (programs / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def write(script):
        program = programs / "npm"
        program.write_text(f"#!{shutil.which('sh')}\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IEXEC)

    return write


def test_without_npm_the_error_says_what_to_do(npm, single, tmp_path, capsys):
    status, told = command(capsys, single.output, "--output", tmp_path / "site")
    assert status == 1 and "npm, which is not installed" in told and "--engine-dir" in told
    assert not (tmp_path / "site").exists()


def test_what_npm_says_is_passed_on(npm):
    npm("echo 'npm error code ENOTFOUND' >&2; exit 1")
    with pytest.raises(DependencyError, match=r"npm error code ENOTFOUND.*--engine-dir"):
        find_engine(None, print)
    npm("exit 0")
    with pytest.raises(DependencyError, match="npm brought no"):
        find_engine(None, print)


def test_npm_is_asked_once(npm, engine, tmp_path, capsys):
    npm(f"echo $@ >> {tmp_path}/calls; cat package-lock.json > {tmp_path}/lock; cp -r {engine} node_modules")
    first = find_engine(None, print)
    assert (tmp_path / "calls").read_text().startswith("ci --ignore-scripts")
    assert (tmp_path / "lock").read_text() == (ROOM / "package-lock.json").read_text()
    assert "fetching the page's engine" in capsys.readouterr().out
    npm("exit 1")
    assert find_engine(None, print) == first and not capsys.readouterr().out
    # A kept engine that is no longer whole is fetched anew
    (first / next(iter(CPU_FILES))).unlink()
    with pytest.raises(DependencyError):
        find_engine(None, print)
    npm(f"cp -r {engine} node_modules")
    assert (find_engine(None, print) / next(iter(CPU_FILES))).is_file()
    (first / next(iter(GPU_FILES))).write_bytes(b"cut")
    assert (find_engine(None, print) / next(iter(GPU_FILES))).read_bytes() != b"cut"
