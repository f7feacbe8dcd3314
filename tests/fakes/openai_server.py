"""A server of the OpenAI protocol that answers from a script and keeps what it was asked."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FakeOpenAI:
    """`answers` are (status, body) or (status, body, headers) in order; the last one repeats."""

    answers: list[Any]
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)

    def respond(self, path: str, headers: dict[str, str], body: dict[str, Any] | None) -> Any:
        self.requests.append({"path": path, "authorization": headers.get("Authorization"), "body": body})
        if path.endswith("/models"):
            return 200, json.dumps({"data": [{"id": "listed-model"}]})
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def completion(text: str, finish_reason: str = "stop") -> tuple[int, str]:
    """A well-formed answer."""
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    return 200, json.dumps({"choices": [choice], "usage": usage})


def events(*pieces: dict[str, Any] | str) -> tuple[int, str, dict[str, str]]:
    """A streamed answer: each piece is an event, a text stands as it is."""
    lines = [piece if isinstance(piece, str) else f"data: {json.dumps(piece)}" for piece in pieces]
    return 200, "\n\n".join(lines) + "\n\n", {"Content-Type": "text/event-stream; charset=utf-8"}


@contextmanager
def serving(*answers: Any) -> Iterator[FakeOpenAI]:
    """Serve `answers` on a free loopback port."""
    fake = FakeOpenAI(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, text, *more = fake.respond(self.path, dict(self.headers), json.loads(raw) if raw else None)
            self.send_response(status)
            for name, value in (more[0] if more else {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
