"""`seq2seq play` in this process, and a client that can send what browsers do not."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seq2seq.play.runs import Player, player
from seq2seq.play.server import application, server_of

HOST = {"Host": "127.0.0.1:8014"}
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@contextlib.contextmanager
def players(*runs: Path | str, overrides: Sequence[str] = ()) -> Iterator[list[Player]]:
    with contextlib.ExitStack() as stack:
        closing = (contextlib.closing(player(str(run), overrides)) for run in runs)
        yield [stack.enter_context(each) for each in closing]


async def send(
    app: Any,
    path: str,
    body: bytes | Sequence[bytes] = b"",
    headers: dict[str, str] | None = None,
    method: str = "POST",
    *,
    whole: bool = True,
    gone: bool = False,
) -> Reply:
    """Send a request, its body in one block or several.

    What is not whole never ends, or the client is gone.
    """
    blocks = [body] if isinstance(body, bytes) else [*body]
    sent = {**HOST, **(JSON if method == "POST" else {}), **(headers or {})}
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "scheme": "http", "server": ("127.0.0.1", 8014), "client": ("127.0.0.1", 1),
        "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in sent.items()],
    }  # fmt: skip
    messages: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not blocks:
            if gone:
                return {"type": "http.disconnect"}
            await asyncio.sleep(3600)  # a client that waits
        block = blocks.pop(0)
        return {"type": "http.request", "body": block, "more_body": bool(blocks) or not whole}

    async def keep(message: dict[str, Any]) -> None:
        messages.append(message)

    await app(scope, receive, keep)
    first, *rest = messages
    found = {k.decode(): v.decode("latin-1") for k, v in first["headers"]}
    return Reply(first["status"], found, b"".join(m.get("body", b"") for m in rest))


def question(source: Any, **others: Any) -> bytes:
    return json.dumps({"run": 0, "page": "test", "source": source} | others).encode()


@contextlib.contextmanager
def served(made: Sequence[Player]) -> Iterator[str]:
    """Serve at a port of this machine, in a thread; the address."""
    from seq2seq.cli.play import listen

    listening = listen("127.0.0.1", 0)
    server = server_of(application(made, "127.0.0.1"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
