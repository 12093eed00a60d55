"""The page in a real browser: the runtime's answers, nothing sent, offline, keyboard, narrow screens, odd text."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from browser_steps import PATIENCE_MS, Server, ask, choose, loaded, shown, until
from squeezebert.export.exporter import export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.files.manifest import read_manifest
from squeezebert.runtime.predictor import load
from squeezebert.web.site import HEADERS, write_site
from tiny_checkpoints import save_checkpoint, texts, tiny_model

pytest_plugins = ["exported_folders", "browsing"]
pytestmark = pytest.mark.web

# Pictures for whoever wants to look
PICTURES = Path(os.environ.get("PICTURES", "build/web"))
ITEMS = [
    "the train was late, and it was quiet in the garden",
    "",
    "The TRÁIN 🙂👍🏽 漢字の天気 شُكْرًا שלום, straße\u200d\u00ad",
    "null\0inside \x07 and [SEP] written out",
    "half a pair \ud83d here",
    "the river and the boat " * 60,
    *texts(6, seed=5),
]
# The engines differ in the last bits; of int8 a value next to a half may be rounded to the other side
NEAR = {"fp32": 2e-5, "int8": 2e-2}


def near(precision):
    return lambda value: pytest.approx(value, abs=NEAR[precision])


def own_requests(visited, start):
    """What the page asked for since; the browser looks by itself whether there is a newer service worker."""
    return [path for path in visited.server.asked[start:] if path != "/sw.js"]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """An exported classifier of 40 labels with long, odd names."""
    folder = tmp_path_factory.mktemp("many")
    labels = ["Donaudampfschifffahrtsgesellschaftskapitän" * 2, "<b>bold</b> & 'quoted'", "שלום עולם"]
    labels += [f"label {i}" for i in range(37)]
    about = {"task": "single_label", "labels": labels, "max_length": 40}
    about["text_columns"] = {"text": "text", "text_pair": None}
    checkpoint = save_checkpoint(folder / "checkpoint", tiny_model(num_labels=len(labels)), about)
    export_checkpoint(checkpoint, folder / "exported", ExportOptions(threads=1, force=True))
    return folder / "exported"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_one_label_as_the_runtime_gives_it(single, visit, precision):
    visited = visit(single.output)
    loaded(visited.page)
    choose(visited.page, precision)
    model = load(single.output, 1, precision)
    for text in ITEMS:
        got, wanted = ask(visited.page, text), model.predict(text)
        assert got["probabilities"] == {k: near(precision)(v) for k, v in wanted.probabilities.items()}, text
        assert f"{precision}, {wanted.tokens} tokens" in got["notes"]
        assert ("its end did not count" in got["notes"]) == wanted.truncated
        ordered = sorted(wanted.probabilities.values())
        if ordered[-1] - ordered[-2] > 2 * NEAR[precision]:
            assert got["given"] == [wanted.label]
            assert got["summary"].startswith(f"{wanted.label}, ")
    assert visited.problems == []


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_several_labels_of_pairs_as_the_runtime_gives_them(multi, visit, precision):
    visited = visit(multi.output)
    loaded(visited.page)
    choose(visited.page, precision)
    model = load(multi.output, 1, precision)
    thresholds = dict(zip(model.labels, model.manifest.thresholds, strict=True))
    for pair in zip(ITEMS, reversed(ITEMS), strict=True):
        got = ask(visited.page, *pair)
        (wanted,) = model.predict([pair])
        assert got["probabilities"] == {k: near(precision)(v) for k, v in wanted.probabilities.items()}
        clear = {k for k, v in wanted.probabilities.items() if abs(v - thresholds[k]) > NEAR[precision]}
        assert set(got["given"]) & clear == set(wanted.labels) & clear
        assert ("its end did not count" in got["notes"]) == wanted.truncated
    assert visited.problems == []


def test_a_number_as_the_runtime_gives_it(regression, visit):
    visited = visit(regression.output)
    loaded(visited.page)
    for precision in ("fp32", "int8"):
        choose(visited.page, precision)
        model = load(regression.output, 1, precision)
        for text in ITEMS:
            got = ask(visited.page, text)
            assert got["value"] == pytest.approx(model.predict(text).value, abs=20 * NEAR[precision])
            assert float(got["summary"]) == pytest.approx(got["value"], rel=1e-4)
    # The checkpoint does not say whether it reads pairs: a second text may be given
    pair = ("the train", "was late")
    got = ask(visited.page, *pair)
    assert got["value"] == pytest.approx(model.predict([pair])[0].value, abs=20 * NEAR["int8"])


def test_nothing_is_asked_of_any_server_after_loading(single, visit):
    visited = visit(single.output)
    page = visited.page
    loaded(page)
    assert {url.partition("/")[2].partition("/")[2].partition("/")[0] for url in visited.requests} == {
        f"127.0.0.1:{visited.server.port}"
    }
    start = len(visited.server.asked)
    for text in ITEMS:
        ask(page, text)
    for form in ("int8", "fp32", "auto"):
        page.check(f"#choice-{form}")
        ask(page, "the train")
    page.wait_for_timeout(500)
    assert own_requests(visited, start) == []
    # And it could not: the policy that the browser enforces names no other server
    other = Server(single.output)
    try:
        refused = "fetch('%s').then(() => 'sent', (error) => error.name)"
        assert page.evaluate(refused % f"{other.address}manifest.json?stolen=text") == "TypeError"
        assert other.asked == []
    finally:
        other.close()
    # The worker has the policy too: its script comes with it, whatever the server sends
    policy = page.evaluate("fetch('worker.js').then((answer) => answer.headers.get('Content-Security-Policy'))")
    assert policy == HEADERS["Content-Security-Policy"]
    assert visited.page.url.startswith("http://127.0.0.1") and [p for p in visited.problems if "Policy" not in p] == []


def test_the_page_works_offline_after_the_first_visit(single, visit):
    visited = visit(single.output)
    loaded(visited.page)
    before = ask(visited.page, "the train was late")
    assert visited.page.inner_text("#offline") == "Everything is on this device: the page works offline."
    visited.server.close()
    visited.page.reload()
    loaded(visited.page)
    assert ask(visited.page, "the train was late")["probabilities"] == before["probabilities"]


def test_threads_come_with_the_second_visit_or_the_servers_headers(single, visit):
    visited = visit(single.output, "?threads=2")
    loaded(visited.page)
    assert not visited.page.evaluate("crossOriginIsolated")
    assert "one thread" in visited.page.inner_text("#about")
    visited.page.reload()
    loaded(visited.page)
    assert visited.page.evaluate("crossOriginIsolated")
    assert "2 threads" in visited.page.inner_text("#about")
    second = ask(visited.page, "the train was late")
    with_headers = visit(single.output, "?threads=2", headers=HEADERS)
    loaded(with_headers.page)
    assert "2 threads" in with_headers.page.inner_text("#about")
    first = ask(with_headers.page, "the train was late")
    assert first["probabilities"] == {k: near("int8")(v) for k, v in second["probabilities"].items()}
    assert visited.problems == with_headers.problems == []


def test_over_plain_http_it_answers_too(single, make_site, launch):
    # Browsers trust this machine's own address as they trust HTTPS, and no other name
    browser = launch("--host-resolver-rules=MAP plain.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    server = Server(make_site(single.output))
    try:
        page = browser.new_page()
        page.goto(f"http://plain.test:{server.port}/")
        loaded(page)
        assert not page.evaluate("isSecureContext")
        assert page.inner_text("#offline") == "The page needs its server on each visit."
        wanted = load(single.output, 1, "fp32").predict("the train was late")
        choose(page, "fp32")
        got = ask(page, "the train was late")
        assert got["probabilities"] == {k: near("fp32")(v) for k, v in wanted.probabilities.items()}
    finally:
        browser.close()
        server.close()


def test_the_faster_file_answers_by_default(single, visit):
    page = visit(single.output).page
    loaded(page)
    medians = {
        form: float(page.inner_text(f"label[for=choice-{form}]").split("median ")[1].split(" ms")[0])
        for form in ("fp32", "int8")
    }
    named = page.inner_text("label[for=choice-auto]")
    answering = ask(page, "the train")["notes"].split(",")[0]
    assert f"({answering})" in named
    assert medians[answering] <= medians["fp32"]
    sizes = {p: file.bytes for p, file in read_manifest(single.output).files.items()}
    assert f"{sizes['fp32'] / 1e6:.1f} MB" in page.inner_text("label[for=choice-fp32]")


def test_a_page_of_one_file_loads_that_file_alone(single, visit):
    visited = visit(single.output, options={"precisions": ("int8",), "webgpu": False})
    loaded(visited.page)
    assert not [path for path in visited.server.asked if "model.onnx" in path or "webgpu" in path]
    assert visited.page.locator("#choices input").count() == 2
    assert ask(visited.page, "the train")["notes"].startswith("int8, ")


def test_everything_is_reached_by_keyboard_and_has_a_name(single, visit):
    page = visit(single.output).page
    loaded(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.type("the train was late")
    page.keyboard.press("Control+Enter")
    first = shown(page)
    assert first["summary"]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "ask"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert float(outline.removesuffix("px")) >= 2
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "choice-auto"
    page.keyboard.press("ArrowDown")
    until(page, "document.getElementById('status').textContent === 'Ready. fp32 answers.'")
    page.keyboard.press("Shift+Tab")
    page.evaluate("document.getElementById('summary').textContent = ''")
    page.keyboard.press("Enter")
    assert shown(page)["notes"].startswith("fp32, ")
    # Names as a screen reader has them, and the answer in a region that is read out
    tree = page.locator("main").aria_snapshot()
    for part in ('textbox "Text"', 'button "Answer"', 'group "Model file"', 'region "Answer"', 'columnheader "Label"'):
        assert part in tree, tree
    assert page.locator("[role=status] #summary").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1000])
def test_accessible_and_within_the_screen(many, multi, regression, visit, scheme, width):
    from axe_playwright_python.sync_playwright import Axe

    grounds = set()
    for name, folder in (("labels", many), ("pairs", multi.output), ("number", regression.output)):
        view = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
        page = visit(folder, options={"title": f"A page of {name}"}, **view).page
        loaded(page)
        ask(page, "Donaudampfschifffahrtsgesellschaftskapitän" * 9 + " the train was late", "the quiet river")
        if folder == many:
            page.click("#more")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        PICTURES.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=PICTURES / f"{name}-{width}-{scheme}.png", full_page=True)
        found = Axe().run(page).response["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == {"rgb(244, 245, 247)" if scheme == "light" else "rgb(20, 23, 27)"}


def has_webgpu(page):
    return page.evaluate("navigator.gpu?.requestAdapter().then((adapter) => adapter !== null) ?? false")


def test_webgpu_is_offered_where_the_browser_has_it(single, make_site, launch, visit):
    # A machine without a graphics processor, as this may be, computes in software: slow, and the same
    browser = launch("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--use-vulkan=swiftshader")
    server = Server(make_site(single.output))
    try:
        page = browser.new_page()
        page.goto(server.address)
        loaded(page)
        offered = page.locator("#choice-webgpu").count() == 1
        assert offered == has_webgpu(page)
        if offered:  # a Chromium built without it answers as well, and is asked nothing more here
            assert "webgpu" not in page.inner_text("#measured")
            page.check("#choice-webgpu")
            until(page, "document.getElementById('status').textContent === 'Ready. webgpu answers.'", 5 * PATIENCE_MS)
            got, wanted = ask(page, "the train was late"), load(single.output, 1, "fp32").predict("the train was late")
            assert got["notes"].startswith("webgpu, ")
            assert got["probabilities"] == {k: pytest.approx(v, abs=1e-3) for k, v in wanted.probabilities.items()}
    finally:
        browser.close()
        server.close()
    plain = visit(single.output).page
    loaded(plain)
    assert (plain.locator("#choice-webgpu").count() == 1) == has_webgpu(plain)


def test_many_labels_are_shown_on_request_and_names_are_text(many, visit):
    page = visit(many).page
    loaded(page)
    assert len(ask(page, "the train")["probabilities"]) == 40
    assert page.locator("#rows tr:visible").count() == 10
    assert page.locator("#rows b").count() == 0
    page.click("#more")
    assert page.locator("#rows tr:visible").count() == 40
    assert page.get_attribute("#more", "aria-expanded") == "true"
    assert "<b>bold</b> & 'quoted'" in page.inner_text("#rows")


@pytest.mark.parametrize(
    "text", ["the train " * 100_000, "a" * 1_000_000, "漢" * 333_000, "\0" * 1_000_000, "🙂" * 250_000]
)
def test_a_megabyte_is_answered(single, visit, text):
    page = visit(single.output).page
    loaded(page)
    choose(page, "fp32")
    got = ask(page, text)
    wanted = load(single.output, 1, "fp32").predict(text)
    assert got["probabilities"] == {k: near("fp32")(v) for k, v in wanted.probabilities.items()}
    assert (
        f", {wanted.tokens} tokens" in got["notes"] and ("its end did not count" in got["notes"]) == wanted.truncated
    )
    # And the page still answers
    assert ask(page, "the train")["summary"]


def test_a_question_before_the_model_is_there_is_answered_then(single, visit):
    page = visit(single.output).page
    page.fill("#text", "the train was late")
    page.keyboard.press("Control+Enter")
    until(page, "document.querySelectorAll('#rows tr').length === 3")
    assert shown(page)["given"]


def test_one_text_before_a_model_of_pairs_is_there_is_no_question(multi, visit):
    page = visit(multi.output).page
    page.fill("#text", "the train was late")
    page.keyboard.press("Control+Enter")
    until(page, "document.getElementById('summary').textContent.includes('write the second one too')")
    assert page.evaluate("document.activeElement.id") == "text-pair"
    assert not page.query_selector_all("#rows tr")
    page.keyboard.type("the boat was early")
    page.keyboard.press("Control+Enter")
    until(page, "document.querySelectorAll('#rows tr').length > 0")
    found = shown(page)["probabilities"]
    answers = {
        precision: load(multi.output, 1, precision).predict([("the train was late", "the boat was early")])[0]
        for precision in ("fp32", "int8")  # whichever the page has measured to be the faster by now
    }
    assert any(
        found == {label: near(precision)(value) for label, value in answer.probabilities.items()}
        for precision, answer in answers.items()
    )


def damaged(site: Path, folder: Path, name: str, content: bytes | None) -> Path:
    """A copy of a page in which a file has other content, or is missing."""
    shutil.copytree(site, folder)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("model/model_quantized.onnx", b"x" * 100, "is not the file that this page was made with"),
        ("model/tokenizer.json", None, "model/tokenizer.json: the server answered 404"),
        ("engine/ort-wasm-simd-threaded.wasm", b"", "is not the file that this page was made with"),
        ("engine/ort.wasm.js", None, "engine/ort.wasm.js cannot be loaded"),
        ("site.json", None, "site.json: the server answered 404"),
        ("site.json", b"{", "site.json is damaged"),
    ],
)
def test_a_damaged_page_says_what_is_wrong(single, make_site, browse, tmp_path, name, content, told):
    page = browse(damaged(make_site(single.output), tmp_path / "site", name, content)).page
    page.wait_for_selector("#problem:visible", timeout=60_000)
    assert told in page.inner_text("#problem")
    page.keyboard.press("Control+Enter")
    page.evaluate("document.getElementById('form').requestSubmit()")
    assert page.inner_text("#status") == "The model is not running." and page.is_disabled("#ask")
    assert told in page.inner_text("#problem") and "as soon as" not in page.inner_text("#summary")


@pytest.mark.parametrize(("wrong", "right"), [("fp32", "int8"), ("int8", "fp32")])
def test_a_device_that_answers_otherwise_is_told_so(single, make_site, browse, tmp_path, wrong, right):
    facts = json.loads((make_site(single.output) / "site.json").read_text())
    facts["samples"][0]["expected"][wrong][0] += 0.5
    page = browse(damaged(make_site(single.output), tmp_path / "site", "site.json", json.dumps(facts).encode())).page
    loaded(page)
    # It stays, and the other file answers, whichever is faster
    ask(page, "the train was late")
    assert f"{wrong} answers otherwise on this device" in page.inner_text("#warnings")
    assert "answers otherwise here" in page.inner_text(f"label[for=choice-{wrong}]")
    assert ask(page, "the train")["notes"].startswith(f"{right}, ")


def test_a_newer_page_is_offered_and_keeps_what_has_not_changed(single, engine, browse, tmp_path):
    site = tmp_path / "site"
    write_site(single.output, site, engine, title="Old")
    visited = browse(site)
    page, server = visited.page, visited.server
    loaded(page)
    write_site(single.output, site, engine, title="New", overwrite=True)
    page.reload()
    page.wait_for_selector("#reload:visible", timeout=60_000)
    assert page.inner_text("h1") == "Old"
    loaded(page)
    start = len(server.asked)
    page.click("#reload")
    page.wait_for_function("() => document.querySelector('h1')?.textContent === 'New'", timeout=60_000)
    loaded(page)
    assert not [path for path in server.asked[start:] if "sha256" in path]
    assert len(page.evaluate("caches.keys()")) == 2


@pytest.fixture
def other(tmp_path_factory):
    """Another model, whose files a page of the first has not."""
    folder = tmp_path_factory.mktemp("other")
    about = {"task": "single_label", "labels": ["a", "b", "c"], "max_length": 40}
    about["text_columns"] = {"text": "text", "text_pair": None}
    checkpoint = save_checkpoint(folder / "checkpoint", tiny_model(num_labels=3, seed=7), about)
    export_checkpoint(checkpoint, folder / "exported", ExportOptions(threads=1, force=True))
    return folder / "exported"


@pytest.mark.parametrize("taken", [True, False])
def test_an_older_page_answers_offline_until_the_newer_one_is_whole(single, other, engine, browse, tmp_path, taken):
    site = tmp_path / "site"
    write_site(single.output, site, engine, title="Old")
    visited = browse(site)
    page, server = visited.page, visited.server
    loaded(page)
    choose(page, "fp32")
    before = ask(page, "the train was late")["probabilities"]
    write_site(other, site, engine, title="New", overwrite=True)
    page.reload()
    page.wait_for_selector("#reload:visible", timeout=60_000)
    loaded(page)
    server.close()
    # With all tabs closed the browser puts the newer version in its place by itself
    if taken:
        page.click("#reload")
        page.wait_for_function("() => !document.getElementById('reload')", timeout=60_000)
    else:
        page.close()
        page = visited.visitor.new_page()
        page.goto(server.address)
    loaded(page)
    assert page.inner_text("h1") == "Old"
    choose(page, "fp32")
    assert ask(page, "the train was late")["probabilities"] == before
    with closing(Server(site, port=server.port)):
        page.reload()
        page.wait_for_function("() => document.querySelector('h1')?.textContent === 'New'", timeout=60_000)
        loaded(page)
        assert set(ask(page, "the train was late")["probabilities"]) == {"a", "b", "c"}
        page.reload()
        loaded(page)
        assert len(page.evaluate("caches.keys()")) == 2


def test_a_half_copied_page_is_not_kept(single, other, engine, browse, tmp_path):
    site, newer = tmp_path / "site", tmp_path / "newer"
    write_site(single.output, site, engine, title="Old")
    write_site(other, newer, engine, title="New")
    page = browse(site, headers={"Cache-Control": "no-cache"}).page
    loaded(page)
    shutil.copyfile(newer / "sw.js", site / "sw.js")
    page.reload()
    loaded(page)
    page.wait_for_timeout(1000)
    assert page.inner_text("h1") == "Old" and not page.query_selector("#reload")
    shutil.copytree(newer, site, dirs_exist_ok=True)
    page.reload()
    page.wait_for_selector("#reload:visible", timeout=60_000)
    page.click("#reload")
    page.wait_for_function("() => document.querySelector('h1')?.textContent === 'New'", timeout=60_000)
    loaded(page)
    assert page.inner_text("#problem") == ""


def test_pages_above_and_below_do_not_answer_for_each_other(single, engine, browse, tmp_path):
    site = tmp_path / "site"
    write_site(single.output, site, engine, title="Above")
    write_site(single.output, site / "below", engine, title="Below")
    (site / "blog").mkdir()
    (site / "blog" / "index.html").write_text("<p id=p>old</p><script>p.textContent = 'new'</script>")
    visited = browse(site)
    page, server = visited.page, visited.server
    loaded(page)
    page.goto(server.address + "blog/")
    assert page.inner_text("#p") == "new"
    page.goto(server.address + "below/")
    loaded(page)
    assert page.inner_text("h1") == "Below" and not page.query_selector("#reload")
    assert page.inner_text("#offline") == "Everything is on this device: the page works offline."
    server.close()
    for name, title in (("below/", "Below"), ("", "Above")):
        page.goto(server.address + name)
        loaded(page)
        assert page.inner_text("h1") == title


def test_servers_that_hide_the_name_of_the_page_will_do(single, make_site, browse):
    visited = browse(make_site(single.output), redirects={"/index.html": "/"})
    page, server = visited.page, visited.server
    loaded(page)
    page.reload()
    loaded(page)
    server.close()
    page.goto(server.address + "index.html")
    loaded(page)


def test_a_file_that_the_server_has_mended_is_loaded_anew(single, make_site, browse, tmp_path):
    site = make_site(single.output)
    name = "model/model_quantized.onnx"
    whole = (site / name).read_bytes()
    copy = damaged(site, tmp_path / "site", name, bytes(len(whole)))
    page = browse(copy, headers={"Cache-Control": "max-age=86400"}).page
    page.wait_for_selector("#problem:visible", timeout=60_000)
    (copy / name).write_bytes(whole)
    page.reload()
    loaded(page)


def test_a_file_that_is_missing_is_said_to_be_left_out(single, make_site, browse, tmp_path):
    page = browse(damaged(make_site(single.output), tmp_path / "site", "model/model.onnx", None)).page
    loaded(page)
    assert "fp32 is left out: model/model.onnx: the server answered 404" in page.inner_text("#warnings")
    assert page.inner_text("#offline") == "Everything is on this device: the page works offline."


def test_a_frame_without_an_origin_of_its_own_says_what_it_needs(single, make_site, browse):
    visited = browse(make_site(single.output), headers={"Access-Control-Allow-Origin": "*", **HEADERS})
    page = visited.visitor.new_page()
    page.set_content(f'<iframe src="{visited.server.address}" sandbox="allow-scripts allow-forms"></iframe>')
    frame = page.frames[1]
    frame.wait_for_selector("#problem:visible", timeout=PATIENCE_MS)
    assert "allow-same-origin" in frame.inner_text("#problem")
    page.set_content(f'<iframe src="{visited.server.address}" sandbox="allow-scripts allow-same-origin"></iframe>')
    loaded(page.frames[1])


def test_a_file_that_is_chosen_while_it_comes_is_loaded_once(single, visit):
    visited = visit(single.output)
    until(visited.page, "document.getElementById('choice-fp32') !== null")
    visited.page.check("#choice-fp32")
    loaded_file = "document.getElementById('offline').textContent !== ''"
    until(visited.page, loaded_file)
    assert len([path for path in visited.server.asked if path.startswith("/model/model.onnx")]) == 1
    assert ask(visited.page, "the train")["notes"].startswith("fp32, ")


def test_a_text_is_shown_the_way_its_first_letter_runs(single, visit):
    page = visit(single.output).page
    for text, way in (
        ("the train", "ltr"),
        ("  (שלום) the", "rtl"),
        ("12 مرحبا", "rtl"),
        ("漢字", "ltr"),
        ("12.", "ltr"),
    ):
        page.fill("#text", text)
        assert page.evaluate("getComputedStyle(document.getElementById('text')).direction") == way, text


def test_more_threads_than_cores_are_not_started(single, visit):
    visited = visit(single.output, "?threads=1000", headers=HEADERS)
    loaded(visited.page)
    cores = visited.page.evaluate("navigator.hardwareConcurrency")
    assert ("one thread" if cores == 1 else f"{cores} threads") in visited.page.inner_text("#about")
