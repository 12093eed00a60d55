"""The routes: a service in, a FastAPI application out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from squeezebert import __version__
from squeezebert.runtime.predictor import Prediction
from squeezebert.runtime.server.gate import PATH, Gate, json_response
from squeezebert.runtime.server.limits import Limits, Refusal
from squeezebert.runtime.server.schema import RESPONSES, About, OneText, Problem, Question, Status
from squeezebert.runtime.server.service import Service
from squeezebert.runtime.tokens import Text

_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is no JSON."},
    413: {"model": Problem, "description": "The body has too many bytes."},
    415: {"model": Problem, "description": "The body does not say that it is JSON."},
    422: {"model": Problem, "description": "The body holds no texts as this model reads them, or too much."},
    429: {
        "model": Problem,
        "description": "Too much waits already.",
        "headers": {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}},
    },
    500: {"model": Problem, "description": "The model failed on this request."},
    503: {"model": Problem, "description": "The time limit was reached, or the service is not ready."},
}
_USAGE = 'send {"text": ...}, with "text_pair" for a model of pairs, or {"texts": [...]}'
_UNREADY: dict[int | str, dict[str, Any]] = {503: _REFUSALS[503]}


def make_application(service: Service) -> FastAPI:
    """Return the application that answers for `service`, which its owner starts and closes.

    The documentation pages of FastAPI, which load scripts from elsewhere, and its telemetry, which can hold texts, are
    off.
    """
    manifest, limits, measures = service.manifest, service.limits, service.measures
    app = FastAPI(
        title="squeezebert",
        version=__version__,
        summary=f"Answers of {manifest.source}: {manifest.task}",
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.add_middleware(Gate, service=service)

    @app.post(
        PATH,
        response_model=RESPONSES[manifest.task],
        responses=_REFUSALS,
        summary="Answer a text, a pair, or several",
        description=f"At most {limits.texts} texts of {limits.characters} characters, {limits.bytes} bytes in all, "
        f"within {limits.seconds:g} seconds. A text has the same answer alone and among others, rounding apart.",
    )
    async def predict(question: Question, request: Request) -> Response:
        texts = _texts(question)
        check_texts(texts, manifest.pair, limits, several=not isinstance(question, OneText))
        answers = await _answers(service, texts, request)
        measures.texts.inc(len(answers))
        measures.truncated.inc(sum(answer.truncated for answer in answers))
        found = [answer.to_dict() for answer in answers]
        return json_response(found[0] if isinstance(question, OneText) else {"answers": found})

    @app.get("/health", response_model=Status, summary="Whether the service lives")
    async def health() -> Response:
        return json_response({"status": "alive"})

    @app.get("/ready", response_model=Status, responses=_UNREADY, summary="Whether requests are answered")
    async def ready() -> Response:
        service.check_ready()
        return json_response({"status": "ready"})

    @app.get("/metrics", response_class=PlainTextResponse, summary="Counters for Prometheus")
    async def metrics() -> Response:
        return Response(generate_latest(measures.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", response_model=About, summary="What is served")
    async def about() -> Response:
        return json_response(
            {
                "squeezebert": __version__,
                "model": manifest.source,
                "task": manifest.task,
                "labels": list(manifest.labels),
                "pair": manifest.pair,
                "max_length": manifest.max_length,
                "precision": None if service.predictor is None else service.predictor.precision,
                "limits": limits.to_dict(),
            }
        )

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> Response:
        return _refuse(request, refusal)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return _refuse(request, _explain(error.errors()))

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        kinds = {400: "invalid_json", 404: "not_found", 405: "method_not_allowed"}
        detail = str(error.detail)
        if error.status_code == 400:
            detail = "the body cannot be read as JSON: it has to be UTF-8, and not nested too deep"
        response = _refuse(request, Refusal(error.status_code, kinds.get(error.status_code, "refused"), detail))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return _refuse(request, Refusal(500, "failed", "the model failed on this request: see the log of the service"))

    return app


def check_texts(texts: Sequence[Text], pair: bool | None, limits: Limits, several: bool = True) -> None:
    """Raise `Refusal` (422), naming the text, for too many or too long ones, and for a pair where none is read."""
    if len(texts) > limits.texts:
        raise Refusal(422, "too_many_texts", f"texts: {len(texts)} of them, and the limit is {limits.texts}")
    for number, item in enumerate(texts):
        place = f"texts[{number}]" if several else "text"
        if pair is not None and pair != isinstance(item, tuple):
            shape = "[text, text_pair]" if several else "`text` and `text_pair`"
            wanted = f"pairs of texts: send {shape}" if pair else "single texts: send no second one"
            raise Refusal(422, "invalid_request", f"{place}: this model reads {wanted}")
        longest = max(map(len, item)) if isinstance(item, tuple) else len(item)
        if longest > limits.characters:
            raise Refusal(422, "text_too_long", f"{place}: {longest} characters, and the limit is {limits.characters}")


def _texts(question: Question) -> list[Text]:
    if isinstance(question, OneText):
        return [question.text if question.text_pair is None else (question.text, question.text_pair)]
    return list(question.texts)


async def _answers(service: Service, texts: Sequence[Text], request: Request) -> list[Prediction]:
    """Wait for the answers; texts whose client left, or that ran out of time, are taken out of the queue."""
    job = service.submit(texts)
    answers = asyncio.wrap_future(job.future)
    gone = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((answers, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answers.done():
            raise Refusal(499, "abandoned", "the client left")
        return answers.result()
    finally:
        gone.cancel()
        answers.cancel()
        service.withdraw(job)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


def _refuse(request: Request, refusal: Refusal) -> Response:
    request.state.outcome = refusal.kind
    return json_response(refusal.to_dict(), refusal.status, refusal.headers())


def _explain(errors: Sequence[Any]) -> Refusal:
    """Say the first thing that is wrong with a body in a sentence; the body itself is not repeated."""
    first = errors[0]
    if first["type"] == "json_invalid":
        place = first["loc"][-1]
        return Refusal(400, "invalid_json", f"the body is no JSON: {first['ctx']['error']}, at character {place}")
    place = [part for part in first["loc"] if part not in ("body", "one", "several")]
    if len(place) > 1 and place[0] == "texts":
        detail = f"texts[{place[1]}]: expected a text, or a pair as [text, text_pair]"
    elif place == ["texts"] and first["type"] == "too_short":
        detail = "texts: give at least one"
    elif not place:
        detail = _USAGE
    elif first["type"] == "extra_forbidden":
        known = str(place[0]) if place[0] in ("text", "text_pair") else "a field that is not known"
        detail = f"{known}: not expected here: {_USAGE}"
    else:
        detail = f"{place[0]}: {first['msg']}"
    return Refusal(422, "invalid_request", detail)
