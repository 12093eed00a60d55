"""The service: the predictor's own answers, limits, the queue, company, readiness, counters, signals."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from squeezebert import __version__
from squeezebert.cli import main
from squeezebert.export.exporter import export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.files.manifest import read_manifest, write_manifest
from squeezebert.runtime.predictor import load
from squeezebert.runtime.server import gate
from squeezebert.runtime.server.application import make_application
from squeezebert.runtime.server.limits import Limits, Refusal
from squeezebert.runtime.server.measures import OUTCOMES
from squeezebert.runtime.server.running import listen
from squeezebert.runtime.server.schema import RESPONSES
from squeezebert.runtime.server.service import Service
from squeezebert.workflows.options import ServeOptions
from tiny_checkpoints import save_checkpoint, texts, tiny_model

pytest_plugins = ["exported_folders"]

JSON = {"Content-Type": "application/json"}


@contextmanager
def serving(folder, limits=None, workers=1, precision=None):
    """A started service and a client of its application."""
    service = Service(folder, limits, workers, 1, precision)
    service.start()
    try:
        # What the application answers when something in it breaks, not the exception, is what a client sees
        yield service, TestClient(make_application(service), raise_server_exceptions=False)
    finally:
        service.close(10)


@pytest.fixture(scope="module")
def client(single):
    with serving(single.output) as (_, client):
        yield client


class Held:
    """Stands in for `predict`: notes what it is asked, and waits until it is let go."""

    def __init__(self, service):
        self.real = service.predictor.predict
        self.calls, self.begun, self.go = [], threading.Semaphore(0), threading.Event()
        service.predictor.predict = self

    def __call__(self, items, batch_size=None):
        items = list(items)
        self.calls.append(items)
        self.begun.release()
        assert self.go.wait(20)
        return iter(self.real(items, batch_size))


def asked(app, **options):
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app, **options), base_url="http://service", timeout=20)


async def until(condition):
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("waited in vain")


def outcome(service, name):
    return service.measures.registry.get_sample_value("squeezebert_requests_total", {"outcome": name})


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_answers_are_the_predictors(single, precision):
    model = load(single.output, 1, precision)
    items = [*texts(20), "", " ", "🙂", "the " * 3000, "\0", "\ud800"]
    with serving(single.output, precision=precision) as (_, client):
        # ASCII, so that half a surrogate pair can be sent as JSON's escape
        body = json.dumps({"texts": items}).encode()
        assert client.post("/predict", content=body, headers=JSON).json() == {
            "answers": [answer.to_dict() for answer in model.predict(items)]
        }
        for item in items:
            body = json.dumps({"text": item}).encode()
            assert client.post("/predict", content=body, headers=JSON).json() == model.predict(item).to_dict()


def test_pairs_and_numbers(multi, regression):
    pairs = [(row["text"], row["text_pair"]) for row in multi.rows[:5]]
    model = load(multi.output, 1)
    with serving(multi.output) as (_, client):
        found = client.post("/predict", json={"texts": pairs}).json()
        assert found == {"answers": [answer.to_dict() for answer in model.predict(pairs)]}
        one = client.post("/predict", json={"text": pairs[0][0], "text_pair": pairs[0][1]}).json()
        assert one == found["answers"][0]
        for body in ({"text": "alone"}, {"texts": [pairs[0], "alone"]}):
            refused = client.post("/predict", json=body)
            assert (refused.status_code, refused.json()["error"]) == (422, "invalid_request")
            assert "this model reads pairs" in refused.json()["detail"]
    with serving(regression.output) as (_, client):  # its checkpoint did not say what it reads
        model = load(regression.output, 1)
        mixed = ["the boat", ("the boat", "the river")]
        answers = client.post("/predict", json={"texts": mixed}).json()["answers"]
        assert answers == [answer.to_dict() for answer in model.predict(mixed)]


@pytest.mark.parametrize("kind", ["single", "multi", "regression"])
def test_published_answers_have_the_fields_of_real_ones(kind, request):
    model = load(request.getfixturevalue(kind).output, 1)
    answer = model.predict([("a", "b") if model.manifest.pair else "a"])[0].to_dict()
    one, several = get_args(RESPONSES[model.task])
    assert set(one.model_fields) == set(answer)
    one.model_validate(answer, strict=True)
    several.model_validate({"answers": [answer]}, strict=True)


BAD_BODIES = [
    (b"", 422, "invalid_request", "send"),
    (b"null", 422, "invalid_request", "send"),
    (b"[]", 422, "invalid_request", "send"),
    (b"{}", 422, "invalid_request", "text"),
    (b'{"text": 3}', 422, "invalid_request", "text"),
    (b'{"text": null}', 422, "invalid_request", "text"),
    (b'{"text": NaN}', 422, "invalid_request", "text"),
    (b'{"texts": []}', 422, "invalid_request", "at least one"),
    (b'{"texts": "abc"}', 422, "invalid_request", "texts"),
    (b'{"texts": ["a", 3]}', 422, "invalid_request", r"texts\[1\]: expected a text"),
    (b'{"texts": ["a", ["b"]]}', 422, "invalid_request", r"texts\[1\]: expected a text"),
    (b'{"texts": ["a", ["b", "c"]]}', 422, "invalid_request", r"texts\[1\]: this model reads single texts"),
    (b'{"text": "a", "text_pair": "b"}', 422, "invalid_request", "this model reads single texts"),
    (b'{"text": "a", "texts": ["b"]}', 422, "invalid_request", "text: not expected"),
    (b'{"text": "a", "other": 1}', 422, "invalid_request", "not known"),
    (b'{"text": "a", "\\ud800": 1}', 422, "invalid_request", "send"),
    (b'{"text": "a"', 400, "invalid_json", "at character 12"),
    (b'{"text": "\x00"}', 400, "invalid_json", "at character 10"),
    (b'{"text": "\xff"}', 400, "invalid_json", "UTF-8"),
    (b"\x1f\x8b\x08", 400, "invalid_json", "UTF-8"),
    (b"[" * 100_000, 400, "invalid_json", ""),
    (b'{"text": ' + b"[" * 900 + b"]" * 900 + b"}", 422, "invalid_request", "text"),
    (b'{"text": ' + b"1" * 5000 + b"}", 400, "invalid_json", ""),
]


@pytest.mark.parametrize(("body", "status", "error", "detail"), BAD_BODIES, ids=lambda value: repr(value)[:30])
def test_what_is_no_question_is_told_so(client, body, status, error, detail):
    found = client.post("/predict", content=body, headers=JSON)
    assert (found.status_code, found.json()["error"]) == (status, error)
    assert set(found.json()) == {"error", "detail"}
    assert re.search(detail, found.json()["detail"])


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["text", "texts", "text_pair"]), inner)
    ),
    max_leaves=8,
)
bodies = st.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode())
bodies |= values.map(lambda value: json.dumps({"texts": [value, "a"]}).encode())
bodies |= st.text(st.characters(codec=None), max_size=20).map(lambda text: json.dumps({"text": text}).encode())


@settings(max_examples=150, deadline=None)
@given(body=bodies)
def test_any_bytes_are_answered_or_refused(client, body):
    assert client.post("/predict", content=body, headers=JSON).status_code in (200, 400, 422)


def test_the_type_of_the_body_is_asked_for(client):
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        found = client.post("/predict", content=b'{"text": "a"}', headers={"Content-Type": kind})
        assert (found.status_code, found.json()["error"]) == (415, "not_json")
    told = {"Content-Type": "application/json; charset=utf-8"}
    assert client.post("/predict", content='{"text": "é"}'.encode(), headers=told).status_code == 200


def test_other_addresses_are_refused_as_json(client):
    assert client.get("/nothing").json()["error"] == "not_found"
    found = client.get("/predict")
    assert (found.status_code, found.json()["error"], found.headers["allow"]) == (405, "method_not_allowed", "POST")


def test_characters_and_texts_are_bounded(single, multi):
    limits = Limits(characters=10, texts=3)
    with serving(single.output, limits) as (_, client):
        assert client.post("/predict", json={"text": "🙂" * 10}).status_code == 200
        found = client.post("/predict", json={"texts": ["a", "🙂" * 11]})
        assert (found.status_code, found.json()["error"]) == (422, "text_too_long")
        assert found.json()["detail"] == "texts[1]: 11 characters, and the limit is 10"
        assert client.post("/predict", json={"texts": ["a"] * 3}).status_code == 200
        found = client.post("/predict", json={"texts": ["a"] * 4})
        assert (found.status_code, found.json()["error"]) == (422, "too_many_texts")
    with serving(multi.output, limits) as (_, client):
        found = client.post("/predict", json={"text": "a", "text_pair": "b" * 11})
        assert (found.status_code, found.json()["error"]) == (422, "text_too_long")


def test_bytes_are_bounded_with_a_length_and_without(single):
    body = json.dumps({"text": "a" * 100}).encode()
    with serving(single.output, Limits(bytes=len(body))) as (service, client):

        def chunked(content):
            return iter([content[:7], content[7:50], content[50:]])

        assert client.post("/predict", content=body, headers=JSON).status_code == 200
        sent = client.post("/predict", content=chunked(body), headers=JSON)
        assert "content-length" not in sent.request.headers
        assert sent.status_code == 200
        for content in (body + b" ", chunked(body + b" "), chunked(body * 5)):
            found = client.post("/predict", content=content, headers=JSON)
            assert (found.status_code, found.json()["error"]) == (413, "body_too_large")
        assert outcome(service, "body_too_large") == 3


def test_a_full_queue_refuses_and_says_when_to_ask_again(single):
    limits = Limits(texts=4, queue=4)
    with serving(single.output, limits) as (service, _):
        held, app = Held(service), make_application(service)

        async def crowd():
            async with asked(app) as client:
                first = asyncio.ensure_future(client.post("/predict", json={"text": "the train"}))
                await until(lambda: held.calls)
                waiting = [asyncio.ensure_future(client.post("/predict", json={"texts": ["a", "b"]})) for _ in "12"]
                await until(lambda: service.waiting == 4)
                refused = [await client.post("/predict", json={"text": "one too many"}) for _ in range(5)]
                assert service.waiting == 4
                held.go.set()
                return refused, [await task for task in (first, *waiting)]

        refused, answered = asyncio.run(crowd())
        for found in refused:
            assert (found.status_code, found.json()["error"]) == (429, "queue_full")
            assert 1 <= int(found.headers["retry-after"]) <= limits.seconds
        assert [found.status_code for found in answered] == [200] * 3
        assert (service.waiting, service.in_hand) == (0, 0)
        assert (outcome(service, "queue_full"), outcome(service, "answered")) == (5, 3)


def test_the_time_to_wait_grows_with_the_queue(single):
    service = Service(single.output, Limits(texts=10, queue=10, seconds=30))
    service._seconds_a_text = 2.0
    service.submit(["a"] * 10)
    service.workers = 1
    with pytest.raises(Refusal) as found:
        service.submit(["a"])
    assert found.value.retry_after == 20
    service.workers = 4
    with pytest.raises(Refusal) as found:
        service.submit(["a"])
    assert found.value.retry_after == 5


def test_requests_whose_body_is_on_its_way_are_bounded_too(single):
    with serving(single.output, Limits(texts=1, queue=1)) as (service, _):
        app = make_application(service)

        async def slow(gone):
            yield b'{"text": '
            await gone.wait()
            yield b'"a"}'

        async def crowd():
            gone = asyncio.Event()
            async with asked(app) as client:
                arriving = []
                for number in (1, 2):
                    post = client.post("/predict", content=slow(gone), headers=JSON)
                    arriving.append(asyncio.ensure_future(post))
                    await until(lambda number=number: service.in_hand == number)
                refused = await client.post("/predict", json={"text": "a"})
                gone.set()
                return refused, [(await task).status_code for task in arriving]

        refused, statuses = asyncio.run(crowd())
        assert (refused.status_code, refused.json()["error"]) == (429, "queue_full")
        assert 200 in statuses
        assert service.in_hand == 0


def test_time_is_bounded_waiting_computing_and_sending(single):
    with serving(single.output, Limits(seconds=0.3)) as (service, _):
        held, app = Held(service), make_application(service)

        async def never():
            yield b'{"text": '
            await asyncio.sleep(10)

        async def crowd():
            async with asked(app) as client:
                computing = asyncio.ensure_future(client.post("/predict", json={"text": "a"}))
                await until(lambda: held.calls)
                waiting = client.post("/predict", json={"text": "b"})
                sending = client.post("/predict", content=never(), headers=JSON)
                return await asyncio.gather(computing, waiting, sending)

        began = time.monotonic()
        found = asyncio.run(crowd())
        assert time.monotonic() - began < 5
        assert [(one.status_code, one.json()["error"]) for one in found] == [(503, "timed_out")] * 3
        assert (service.waiting, service.in_hand, outcome(service, "timed_out")) == (0, 0, 3)
        held.go.set()
        service.close(10)
        assert held.calls == [["a"]]  # what nobody waits for is not computed


def test_a_client_that_left_frees_its_place(single):
    with serving(single.output) as (service, _):
        held, app = Held(service), make_application(service)

        async def leave():
            messages = [{"type": "http.request", "body": b'{"text": "b"}', "more_body": False}]
            gone = asyncio.Event()

            async def receive():
                if messages:
                    return messages.pop()
                await gone.wait()
                return {"type": "http.disconnect"}

            async def send(message):
                pass

            headers = [(b"content-type", b"application/json")]
            scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers, "query_string": b""}
            request = asyncio.ensure_future(app(scope, receive, send))
            await until(lambda: service.waiting == 1)
            gone.set()
            await request

        job = service.submit(["a"])
        assert held.begun.acquire(timeout=10)
        asyncio.run(leave())
        assert (service.waiting, outcome(service, "abandoned")) == (0, 1)
        held.go.set()
        assert job.future.result(10)


def together(service, items):
    """Ask for each of `items` by itself while a worker is held, so that they wait together; calls and answers."""
    held = Held(service)
    first = service.submit(["the train"])
    assert held.begun.acquire(timeout=10)
    jobs = [service.submit([item]) for item in items]
    held.go.set()
    assert first.future.result(10)
    answers = [job.future.result(10)[0] for job in jobs]
    return held.calls[1:], answers


def test_what_waits_is_answered_at_once_and_as_if_alone(single):
    items = texts(12)
    with serving(single.output, precision="fp32") as (service, _):
        calls, answers = together(service, items)
        assert calls == [items]
        model = load(single.output, 1, "fp32")
        for item, found in zip(items, answers, strict=True):
            alone = model.predict(item)
            assert found.label == alone.label
            assert found.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
    with serving(single.output, precision="int8") as (service, _):
        calls, answers = together(service, items)
        assert calls == [[item] for item in items]
        assert answers == load(single.output, 1, "int8").predict(items)


def test_workers_share_what_waits(single):
    with serving(single.output, workers=1, precision="fp32") as (service, _):
        service.workers = 3  # as if two more were there
        calls, _ = together(service, texts(9))
        assert [len(call) for call in calls] == [3, 2, 2, 1, 1]


def test_company_that_fails_costs_nobody_else_the_answer(single):
    with serving(single.output, precision="fp32") as (service, client):
        real = service.predictor.predict

        def fragile(items, batch_size=None):
            items = list(items)
            if "poison" in items:
                raise RuntimeError("poison")
            return real(iter(items), batch_size)

        found = client.post("/predict", json={"text": "the train"}).json()
        service.predictor.predict = fragile
        held = Held(service)
        first = service.submit(["a"])
        assert held.begun.acquire(timeout=10)
        jobs = [service.submit([item]) for item in ("the train", "poison", "the train")]
        held.go.set()
        assert first.future.result(10)
        assert [jobs[i].future.result(10)[0].to_dict() for i in (0, 2)] == [found, found]
        with pytest.raises(RuntimeError, match="poison"):
            jobs[1].future.result(10)
        broken = client.post("/predict", json={"text": "poison"})
        assert (broken.status_code, broken.json()["error"]) == (500, "failed")
        assert outcome(service, "failed") == 1
        assert client.post("/predict", json={"text": "the train"}).json() == found


def test_ready_only_between_start_and_stop(single):
    service = Service(single.output)
    client = TestClient(make_application(service))

    def refused(word):
        assert client.get("/health").json() == {"status": "alive"}
        for found in (client.get("/ready"), client.post("/predict", json={"text": "a"})):
            assert (found.status_code, found.json()["error"]) == (503, "not_ready")
            assert word in found.json()["detail"]

    refused("loaded")
    assert client.get("/").json()["precision"] is None
    service.start()
    assert client.get("/ready").json() == {"status": "ready"}
    assert client.post("/predict", json={"text": "a"}).status_code == 200
    service.stop()
    refused("shutting down")
    service.close(10)
    assert not any(thread.is_alive() for thread in service._running)


def test_what_was_submitted_is_answered_before_the_workers_end(single):
    service = Service(single.output, workers=1)
    service.start()
    held = Held(service)
    jobs = [service.submit([item]) for item in texts(5)]
    assert held.begun.acquire(timeout=10)
    closing = threading.Thread(target=service.close)
    closing.start()
    held.go.set()
    closing.join(10)
    assert [job.future.result(0)[0] for job in jobs] == load(single.output, 1).predict(texts(5))


def test_a_folder_that_answers_otherwise_is_not_served(single, tmp_path):
    folder = shutil.copytree(single.output, tmp_path / "exported")
    manifest = read_manifest(folder)
    wrong = replace(manifest.samples[0], expected=dict.fromkeys(("fp32", "int8"), (0.0, 0.0, 1.0)))
    write_manifest(folder, replace(manifest, samples=(wrong,)))
    service = Service(folder)
    with pytest.raises(FolderError, match="answers differ here by"):
        service.start()
    found = TestClient(make_application(service)).get("/ready")
    assert (found.status_code, found.json()["error"]) == (503, "not_ready")
    assert main(["serve", str(folder), "--port", "0"]) == 1


def test_what_is_served_is_published(single):
    limits = Limits(characters=11, texts=12, bytes=1300, queue=14, seconds=15)
    with serving(single.output, limits) as (service, client):
        about = client.get("/").json()
        assert about == {
            "squeezebert": __version__,
            "model": "checkpoint",
            "task": "single_label",
            "labels": list(service.manifest.labels),
            "pair": False,
            "max_length": 40,
            "precision": "int8",
            "limits": {"characters": 11, "texts": 12, "bytes": 1300, "queue": 14, "seconds": 15},
        }
        published = client.get("/openapi.json").json()
    assert published["info"]["version"] == __version__
    schemas = published["components"]["schemas"]
    operation = published["paths"]["/predict"]["post"]
    assert "12 texts of 11 characters" in operation["description"]
    assert {"200", "400", "413", "415", "422", "429", "500", "503"} <= set(operation["responses"])
    assert "Retry-After" in operation["responses"]["429"]["headers"]
    for status in ("413", "422", "429", "503"):
        schema = operation["responses"][status]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Problem"}
    for name in ("OneText", "SeveralTexts", "SingleLabel", "Problem"):
        assert schemas[name]["examples"]
        assert all("description" in field for field in schemas[name]["properties"].values())


def test_published_examples_are_answered(client):
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for name in ("OneText", "SeveralTexts"):
        for example in schemas[name]["examples"]:
            assert client.post("/predict", json=example).status_code == 200


def test_labels_that_have_no_utf8_are_sent(single, tmp_path):
    folder = shutil.copytree(single.output, tmp_path / "exported")
    labels = ("\ud800", "Größe", "other")
    write_manifest(folder, replace(read_manifest(folder), labels=labels))
    with serving(folder) as (_, client):
        assert client.get("/").json()["labels"] == list(labels)
        assert list(client.post("/predict", json={"text": "a"}).json()["probabilities"]) == list(labels)


def test_nothing_is_fetched_or_sent_elsewhere(single, client, monkeypatch):
    assert client.get("/docs").status_code == 404
    assert client.get("/redoc").status_code == 404
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    told = make_application(Service(single.output))._telemetry
    assert [told[name] for name in ("tracing", "metrics", "logs", "auto_configure")] == [False] * 4


def test_counters(single):
    with serving(single.output, Limits(texts=3)) as (_, client):
        client.post("/predict", json={"texts": ["a", "the " * 200]})
        client.post("/predict", json={"text": "a"})
        client.post("/predict", json={"text": 3})
        client.post("/predict", json={"texts": ["a"] * 4})
        found = client.get("/metrics")
    assert found.headers["content-type"].startswith("text/plain")
    values = dict(line.rsplit(" ", 1) for line in found.text.splitlines() if not line.startswith("#"))
    assert values['squeezebert_requests_total{outcome="answered"}'] == "2.0"
    assert values['squeezebert_requests_total{outcome="invalid_request"}'] == "1.0"
    assert values['squeezebert_requests_total{outcome="too_many_texts"}'] == "1.0"
    assert values['squeezebert_requests_total{outcome="queue_full"}'] == "0.0"
    assert values["squeezebert_texts_total"] == "3.0"
    assert values["squeezebert_truncated_texts_total"] == "1.0"
    assert values["squeezebert_request_seconds_count"] == "2.0"
    assert 0 < float(values["squeezebert_request_seconds_sum"]) < 10
    assert values["squeezebert_queue_texts"] == values["squeezebert_requests_in_hand"] == "0.0"
    assert values["squeezebert_batch_texts_sum"] == "3.0"


def test_options_are_checked(single):
    for wrong, told in (
        ({"port": 70000}, "--port 70000"),
        ({"workers": 0}, "--workers 0"),
        ({"threads": 0}, "--threads 0"),
        ({"max_texts": 0}, "--max-texts 0"),
        ({"max_bytes": -1}, "--max-bytes -1"),
        ({"timeout": 0.0}, "--timeout 0"),
        ({"timeout": float("nan")}, "--timeout nan"),
        ({"queue": 3, "max_texts": 4}, "--queue 3"),
    ):
        with pytest.raises(OptionError, match=told):
            ServeOptions(folder="exported", **wrong)
    with pytest.raises(OptionError, match="cannot hold"):
        Service(single.output, Limits(texts=4, queue=3))
    with pytest.raises(OptionError, match="workers"):
        Service(single.output, workers=0)


def test_without_the_extra_the_command_says_what_to_install(single, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("squeezebert.runtime.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "squeezebert.workflows.serve", raising=False)
    for missing in ("fastapi", "uvicorn", "prometheus_client"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, missing, None)
            assert main(["serve", str(single.output)]) == 1
            assert f"serve needs {missing}" in (told := capsys.readouterr().err)
            assert "pip install 'squeezebert[server]'" in told
        for name in [name for name in sys.modules if name.startswith("squeezebert.runtime.server")]:
            del sys.modules[name]


def test_the_service_needs_no_torch(single):
    script = f"""
import sys
from starlette.testclient import TestClient
from squeezebert.runtime.server.application import make_application
from squeezebert.runtime.server.service import Service
service = Service({str(single.output)!r})
service.start()
assert TestClient(make_application(service)).post("/predict", json={{"text": "the train"}}).json()["label"]
assert not {{"torch", "transformers", "onnx", "scipy", "sklearn"}} & set(sys.modules), sys.modules
service.close()
"""
    subprocess.run([sys.executable, "-c", script], check=True)


# The command with a model that takes its time: argv[1] seconds a call
SLOW = """
import sys, time
from squeezebert.cli import main
from squeezebert.runtime.predictor import Predictor
seconds, quick = float(sys.argv.pop(1)), Predictor.predict
def slow(self, texts, batch_size=None):
    time.sleep(seconds)
    return quick(self, texts, batch_size)
Predictor.predict = slow
sys.exit(main(sys.argv[1:]))
"""


@contextmanager
def process(folder, *options, slow=None):
    """A real service on a free port, ready: the process and its address."""
    program = ["-m", "squeezebert"] if slow is None else ["-c", SLOW, str(slow)]
    command = [sys.executable, *program, "serve", str(folder), "--port", "0", *options]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        address = None
        for line in running.stderr:
            if found := re.search(r"serving .*: (http://\S+)$", line.strip()):
                address = found[1]
                break
        assert address, "it ended before it was ready"
        yield running, address
    finally:
        running.kill()
        running.wait()
        running.stderr.close()


def test_concurrent_load_has_the_answers_of_one_by_one(single):
    items = texts(60, seed=5)
    expected = [answer.to_dict() for answer in load(single.output, 1).predict(items)]
    with process(single.output, "--workers", "2") as (_, address), httpx2.Client(timeout=30) as client:

        def ask(item):
            return client.post(f"{address}/predict", json={"text": item}).json()

        with ThreadPoolExecutor(12) as pool:
            assert list(pool.map(ask, items)) == expected
            groups = [items[i : i + 7] for i in range(0, len(items), 7)]
            found = pool.map(lambda group: client.post(f"{address}/predict", json={"texts": group}).json(), groups)
            assert [answer for group in found for answer in group["answers"]] == expected
        metrics = client.get(f"{address}/metrics").text
        assert 'squeezebert_requests_total{outcome="answered"} 69.0' in metrics


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_when_everything_is_answered(single, sent):
    expected = load(single.output, 1).predict("the train").to_dict()
    with (
        process(single.output, "--workers", "1", slow=0.4) as (running, address),
        httpx2.Client(timeout=30) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        accepted = [pool.submit(client.post, f"{address}/predict", json={"text": "the train"}) for _ in range(4)]
        deadline = time.monotonic() + 10
        while "squeezebert_requests_in_hand 4.0" not in client.get(f"{address}/metrics").text:
            assert time.monotonic() < deadline
        running.send_signal(sent)
        time.sleep(0.3)
        for late in (client.post(f"{address}/predict", json={"text": "late"}), client.get(f"{address}/ready")):
            assert (late.status_code, late.json()["error"]) == (503, "not_ready")
        assert [(found := task.result()).status_code for task in accepted] == [200] * 4
        assert found.json() == expected
        assert running.wait(10) == 0


def test_a_second_signal_ends_it_at_once(single):
    with (
        process(single.output, slow=30) as (running, address),
        httpx2.Client(timeout=40) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        lost = pool.submit(client.post, f"{address}/predict", json={"text": "the train"})
        while "squeezebert_requests_in_hand 1.0" not in client.get(f"{address}/metrics").text:
            time.sleep(0.05)
        running.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert running.poll() is None
        running.send_signal(signal.SIGTERM)
        assert running.wait(5) == -signal.SIGTERM
        with pytest.raises(httpx2.TransportError):
            lost.result()


def test_a_port_in_use_and_a_strange_host_are_named(single, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", str(single.output), "--port", str(port)]) == 1
    assert f"error: --port {port}: in use on 127.0.0.1" in capsys.readouterr().err
    assert main(["serve", str(single.output), "--host", "203.0.113.1", "--port", "0"]) == 1
    assert "error: --host 203.0.113.1" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_small_packets_are_sent_at_once(host):
    async def accepted():
        connected = asyncio.get_running_loop().create_future()
        with listen(host, 0) as listener:
            server = await asyncio.start_server(lambda _, writer: connected.set_result(writer), sock=listener)
            _, writer = await asyncio.open_connection(*listener.getsockname()[:2])
            there = await connected
            found = there.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            for one in (writer, there, server):
                one.close()
            return found

    assert asyncio.run(accepted())


def test_folders_that_cannot_be_loaded_end_with_the_usual_error(single, tmp_path):
    assert main(["serve", str(single.checkpoint), "--port", "0"]) == 1
    folder = shutil.copytree(single.output, tmp_path / "exported")
    (folder / "onnx" / "model_quantized.onnx").write_bytes(b"broken")
    command = [sys.executable, "-m", "squeezebert", "serve", str(folder), "--port", "0"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 1
    assert "error:" in found.stderr
    assert "not the file that was exported" in found.stderr
    assert "Traceback" not in found.stderr


def test_refusals_reach_clients_that_send_on(single):
    """A real connection: the refusal is read although the body is larger than what a socket holds."""
    with process(single.output, "--max-bytes", "1000000") as (_, address), httpx2.Client(timeout=30) as client:
        host, port = address.removeprefix("http://").split(":")
        parts = [b" " * 65536] * 128
        for content in (b"".join(parts), iter(parts)):
            connection = http.client.HTTPConnection(host, int(port), timeout=20)
            connection.request("POST", "/predict", content, JSON)
            found = connection.getresponse()
            assert (found.status, json.loads(found.read())["error"]) == (413, "body_too_large")
            connection.close()
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            told = "POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9000000\r\n"
            connection.sendall(f"{told}Expect: 100-continue\r\n\r\n".encode())
            # Refused before a byte of the body is asked for
            assert connection.recv(100).startswith(b"HTTP/1.1 413")
        assert client.post(f"{address}/predict", json={"text": "a"}).status_code == 200


def test_what_is_thrown_away_is_bounded(single, monkeypatch):
    monkeypatch.setattr(gate, "_DISCARDING", 0.2)
    with serving(single.output, Limits(bytes=100)) as (service, _):
        taken = []

        async def endless():
            while True:
                taken.append(1)
                yield b" " * 60
                await asyncio.sleep(0)

        async def send():
            async with asked(make_application(service)) as client:
                return await client.post("/predict", content=endless(), headers=JSON)

        assert asyncio.run(send()).status_code == 413
        assert len(taken) < 40


PAGE = Path(__file__).parents[2] / "docs" / "serve.md"


def blocks_of_the_page():
    """Language and text of each block of code."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.skipif(not all(map(shutil.which, ("bash", "curl"))), reason="the page's commands need bash and curl")
def test_the_commands_of_the_page_run_as_written(single, tmp_path):
    (language, install), *blocks = blocks_of_the_page()
    assert (language, install) == ("sh", "pip install 'squeezebert[server]'\n")
    script = ["set -eu", 'python() { "$PYTHON" "$@"; }', "trap 'kill -KILL $! 2>/dev/null || true' EXIT"]
    for language, text in blocks:
        if language == "sh":
            script.append(text)
        elif language == "python":
            script.append(f"python - <<'END'\n{text}END")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    # As written, except for the port, which may be in use here, and for where the program is
    (tmp_path / "squeezebert").write_text('#!/bin/sh\nexec "$PYTHON" -m squeezebert "$@"\n')
    (tmp_path / "squeezebert").chmod(0o755)
    (tmp_path / "exported").symlink_to(single.output)
    environment = {**os.environ, "PYTHON": sys.executable, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    found = subprocess.run(
        ["bash", "-c", "\n".join(script).replace("8000", port)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    model = load(single.output, 1)
    assert json.dumps(model.predict("The bank raised its rates.").to_dict()) in found.stdout
    for text in ("The bank raised its rates.", "A late goal won the cup."):
        answer = model.predict(text)
        assert f"{answer.label} {round(answer.probability, 3)} {text}\n" in found.stdout
    assert '"openapi": "3' in found.stdout.replace('":"', '": "')
    assert '"status": "alive"' in found.stdout
    assert 'squeezebert_requests_total{outcome="answered"} 2.0' in found.stdout


def test_the_tables_of_the_page_are_complete(client):
    page = PAGE.read_text(encoding="utf-8")
    cells = re.findall(r"^\| `([^`]+)` \|", page, re.M)
    limits = {"--" + field.name.replace("_", "-") for field in fields(ServeOptions)}
    assert {cell for cell in cells if cell.startswith("--")} == limits - {
        *("--folder", "--host", "--port", "--precision", "--workers", "--threads")
    }
    metrics = client.get("/metrics").text
    named = {name for name in re.findall(r"^# TYPE (\w+)", metrics, re.M) if not name.endswith("_created")}
    assert {cell for cell in cells if cell.startswith("squeezebert_")} == named
    words = {cell for cell in cells if not cell.startswith(("--", "squeezebert_"))}
    # What goes to no path of the service is no request of its metrics
    elsewhere = {client.get("/nowhere").json()["error"], client.get("/predict").json()["error"]}
    assert elsewhere == {"not_found", "method_not_allowed"} and elsewhere <= words
    assert words - {"error"} - elsewhere | {"answered", "abandoned"} == set(OUTCOMES)


def test_the_proxy_of_the_page_fits_the_limits():
    (block,) = [text for language, text in blocks_of_the_page() if language == "nginx"]
    assert block.count("{") == block.count("}")
    assert f"http://127.0.0.1:{ServeOptions.port};" in block
    assert int(re.search(r"client_max_body_size (\d+)m;", block)[1]) * 2**20 == Limits.bytes
    assert int(re.search(r"proxy_read_timeout (\d+)s;", block)[1]) > Limits.seconds


def test_an_encoder_is_not_served(tmp_path):
    save_checkpoint(tmp_path / "checkpoint", tiny_model(num_hidden_layers=1).transformer)
    export_checkpoint(tmp_path / "checkpoint", tmp_path / "out", ExportOptions(threads=1, precision="fp32"))
    with pytest.raises(OptionError, match="an encoder, which embeds and gives no labels: serve a classifier"):
        Service(tmp_path / "out")
