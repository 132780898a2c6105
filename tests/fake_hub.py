"""A Hugging Face Hub on this machine: one dataset, as many commits as wanted, and every fault."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class FakeHub:
    """What the server holds and how it behaves."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Files by commit; the last one is `main`."""
    name: str = "me/pairs"
    fault: str = ""
    """A status such as 404, `silent`, each also `late` (of files alone); `cut` (they end early)."""
    url: str = ""
    asked: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """Let go whoever waits for an answer."""
        self.ended.set()

    def add(self, files: dict[str, bytes]) -> str:
        """Commit files; return the commit's name."""
        text = json.dumps([len(self.commits), sorted(files)]).encode()
        commit = hashlib.sha1(text + b"".join(files.values())).hexdigest()
        self.commits[commit] = files
        return commit

    def commit(self, revision: str) -> str | None:
        """Return the commit that a revision means."""
        if revision in ("main", "HEAD"):
            return next(reversed(self.commits), None)
        return next((name for name in self.commits if name.startswith(revision)), None)


class Handler(BaseHTTPRequestHandler):
    """Answers as the Hub does, as far as `datasets` asks."""

    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, body: bytes = b"") -> None:
        path = unquote(urlsplit(self.path).path)
        hub = self.hub
        hub.asked.append(f"{self.command} {path}")
        status = hub.fault.removeprefix("late ")
        if "resolve" in path or status == hub.fault:
            if status == "silent":
                hub.ended.wait(60)
                self.close_connection = True
                return None
            if status.isdigit():
                return self._send(int(status), b"{}", self._error(int(status)))
        dataset = f"/datasets/{hub.name}/"
        if path.startswith(f"{dataset}resolve/"):
            return self._file(*path.removeprefix(f"{dataset}resolve/").split("/", 1))
        if path.startswith(f"/api{dataset}"):
            return self._api(path.removeprefix(f"/api{dataset}").split("/", 2), body)
        return self._send(404, b"{}", self._error(404))

    def _error(self, status: int) -> dict[str, str]:
        codes = {404: "RepoNotFound", 401: "RepoNotFound", 403: "GatedRepo"}
        return {"X-Error-Code": codes[status]} if status in codes else {}

    def _file(self, revision: str, name: str) -> None:
        commit = self.hub.commit(revision)
        if commit is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        data = self.hub.commits[commit].get(name)
        if data is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        tags = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit}
        return self._send(200, data, tags, cut=self.hub.fault == "cut" and name != "README.md")

    def _api(self, parts: list[str], body: bytes) -> None:
        kind, revision, *_ = [*parts, "main"]
        commit = self.hub.commit(revision)
        if commit is None:
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        files = self.hub.commits[commit]
        entries = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in files.items()
        ]
        if kind == "revision":
            siblings = [{"rfilename": name} for name in files]
            found = {"id": self.hub.name, "sha": commit, "siblings": siblings, "tags": []}
            return self._send(200, json.dumps(found).encode())
        if kind == "paths-info":
            from urllib.parse import parse_qs

            text = body.decode()
            wanted = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text)["paths"]
            entries = [entry for entry in entries if entry["path"] in wanted]
        return self._send(200, json.dumps(entries).encode())

    def _send(
        self, status: int, data: bytes, headers: dict[str, str] | None = None, *, cut: bool = False
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = cut or self.close_connection


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve it on a free port."""
    handler = type("Bound", (Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.stop()
            server.shutdown()
            thread.join()
