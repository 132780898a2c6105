"""The HTTP server: a page with its script and style, and the questions that the page asks.

A question is a small JSON object in a POST, its answer or error another one. Pages of other sites
cannot ask (`refuse_strangers`), and no path comes from a request.
"""

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from seq2seq.data.words import count_words
from seq2seq.decoding.request import parsed
from seq2seq.play.answers import Question
from seq2seq.play.changes import CHANGES
from seq2seq.play.engine import AbandonedError, SupersededError
from seq2seq.play.runs import Player
from seq2seq.report.page import embedded, own
from seq2seq.run.errors import InternalError, UserError, internal_error, one_line

log = logging.getLogger(__name__)

MAX_BYTES = 16_384  # size of a question
MAX_CHARACTERS, MAX_WORDS = 1_000, 150  # size of a sentence
READ_SECONDS, ANSWER_SECONDS = 10, 30  # time for a question to arrive, and for its answer

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def application(players: Sequence[Player], host: str) -> Starlette:
    """Return the application; `host` is the name that it is reached by beside addresses."""
    # What the page says of the runs is data, which only scripts insert, as text.
    data = {"runs": [player.about for player in players], "most": MAX_CHARACTERS}
    page = _own("page.html").replace("DATA", embedded(data))
    script = own("attention.js") + own("heads.js") + _own("play.js")
    style = own("report.css") + _own("play.css")

    async def file(_request: Request, text: str, kind: str) -> Response:
        return Response(text, media_type=kind)

    # Around every page: strangers are refused, and every error is a line of JSON.
    async def guarded(request: Request, ask: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            refuse_strangers(request.headers, host)
            response = await ask(request)
        except ClientDisconnect:
            response = Response(status_code=400)  # nobody reads it
        except Exception as error:  # a bug is a line, too
            response = _failed(request, error)
        response.headers.update(HEADERS)
        return response

    routes = [
        Route("/", partial(file, text=page, kind="text/html")),
        Route("/play.js", partial(file, text=script, kind="text/javascript")),
        Route("/play.css", partial(file, text=style, kind="text/css")),
    ]
    for kind in players[0].engine.kinds:
        answered = partial(_answered, players=players, kind=kind)
        routes.append(Route(f"/{kind}", answered, methods=["POST"]))
    app = Starlette(
        routes=routes,
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=guarded)],
        exception_handlers={HTTPException: _failed, UserError: _failed},
    )
    app.router.redirect_slashes = False
    return app


def refuse_strangers(headers: Mapping[str, str], host: str) -> None:
    """Refuse requests that pages of other sites make.

    Their browser names the other site in `Origin`, or, if that site's name leads to this server
    (DNS rebinding), in `Host`. An address cannot be led elsewhere.

    Raises:
        HTTPException: the request is refused.
    """
    asked = headers.get("host", "")
    name = asked.rpartition(":")[0] if asked.rpartition(":")[2].isdecimal() else asked
    if name.lower() not in ("localhost", host.lower()) and not _is_address(name):
        raise HTTPException(403, "this host name is not that of the server; give it with --host")
    foreign = headers.get("origin", f"http://{asked}").lower() != f"http://{asked}".lower()
    if foreign or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise HTTPException(403, "requests of other sites are refused")


def _is_address(name: str) -> bool:
    with suppress(ValueError):
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        return True
    return False


async def _answered(request: Request, players: Sequence[Player], kind: str) -> Response:
    """Answer a question; one in place of which the page has asked another is `superseded`."""
    try:
        found = parsed((await _body(request)).decode())
    except (ValueError, RecursionError):
        raise HTTPException(400, "not valid JSON in UTF-8") from None
    if not isinstance(found, dict):
        raise HTTPException(400, "not a JSON object")
    number, page = found.pop("run", None), found.pop("page", None)
    if type(number) is not int or not 0 <= number < len(players):
        raise HTTPException(400, f"run is not a number from 0 to {len(players) - 1}")
    if not isinstance(page, str) or not 0 < len(page) <= 64:
        raise HTTPException(400, "page is not a text of 1 to 64 characters")
    answer = players[number].engine.ask(kind, question_of(kind, found), page)
    try:
        waited = asyncio.wait_for(asyncio.wrap_future(answer), ANSWER_SECONDS)
        return JSONResponse(await waited)
    except SupersededError:
        return JSONResponse({"superseded": True})
    except (TimeoutError, AbandonedError):
        raise HTTPException(503, f"no answer within {ANSWER_SECONDS} seconds") from None


async def _body(request: Request) -> bytes:
    """Read a question, unless it is too long or too slow, or not JSON by its header."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, "Content-Type is not application/json")
    body = b""
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for block in request.stream():
                body += block
                if len(body) > MAX_BYTES:
                    raise HTTPException(413, f"more than {MAX_BYTES} bytes")
    except TimeoutError:
        raise HTTPException(408, f"no whole question within {READ_SECONDS} seconds") from None
    return body


def question_of(kind: str, found: Mapping[str, Any]) -> Question:
    """Check the types and sizes of a question.

    Raises:
        HTTPException: one is wrong.
    """
    texts = {"source", "prefix", "language"}
    intervention = {"change", "to"} if kind == "intervene" else set()
    if unknown := found.keys() - texts - intervention:
        raise HTTPException(400, f"unknown key {min(unknown)!a:.40}")
    if missing := {"source", *intervention} - found.keys():
        raise HTTPException(400, f"{min(missing)} is missing")
    for name in texts & found.keys():
        if name != "language" or found[name] is not None:
            _check_text(name, found[name])
    if intervention and found["change"] not in CHANGES:
        raise HTTPException(400, f"change is not one of {', '.join(CHANGES)}")
    if intervention and (type(found["to"]) is not int or not 0 <= found["to"] <= MAX_CHARACTERS):
        raise HTTPException(400, "to is not the number of a word")
    return Question(**found)


def _check_text(name: str, text: Any) -> None:
    if not isinstance(text, str):
        raise HTTPException(400, f"{name} is not a text")
    if len(text) > MAX_CHARACTERS or count_words(text) > MAX_WORDS:
        size = f"{MAX_CHARACTERS} characters or {MAX_WORDS} words"
        raise HTTPException(413, f"{name} has more than {size}")
    if any(c in text for c in "\n\r\0"):
        raise HTTPException(400, f"{name} is not a single line of text")


def _failed(_request: Request, error: Exception) -> Response:
    """Return an error as JSON with one line."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    if not isinstance(error, UserError):
        log.error("a request was not answered", exc_info=error)
        error = internal_error("play", error, "the traceback in the terminal")
    status = 500 if isinstance(error, InternalError) else 400
    return JSONResponse({"error": one_line(error).removeprefix("error: ")}, status)


def _own(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")


def server_of(app: Starlette) -> uvicorn.Server:
    """Return the server, which a signal ends; `run` raises the signal again once all is closed."""
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # errors are logged here
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=256,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)
