"""A planner at the network boundary: an HTTP server of the OpenAI protocol that gives prepared answers in order."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakePlanner:
    """What the server was asked, and what it answers next (the last answer again when they run out)."""

    def __init__(self, *answers: Any, by_content: bool = False) -> None:
        """Answers are wire objects, or texts as they are; `by_content`: a question asked again has its first answer."""
        self.known: dict[str, str] | None = {} if by_content else None
        self.answers = [answer if isinstance(answer, str) else json.dumps(answer) for answer in answers]
        self.requests: list[dict[str, Any]] = []
        self.url = ""

    def next_answer(self, request: dict[str, Any]) -> str:
        """Note the request and give the next answer."""
        self.requests.append(request)
        question = json.dumps(request["messages"])
        if self.known is not None:
            return self.known.setdefault(question, self.answers[min(len(self.known), len(self.answers) - 1)])
        return self.answers[min(len(self.requests), len(self.answers)) - 1]


@contextmanager
def serve(*answers: Any, by_content: bool = False) -> Iterator[FakePlanner]:
    """Run a fake planner on loopback while the block lasts."""
    fake = FakePlanner(*answers, by_content=by_content)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake))
    fake.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()


def _handler(fake: FakePlanner) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send({"object": "list", "data": [{"id": "fake-planner", "object": "model"}]})

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            message = {"role": "assistant", "content": fake.next_answer(request)}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            self._send({"id": "1", "object": "chat.completion", "choices": choices, "usage": usage})

        def _send(self, body: dict[str, Any]) -> None:
            text = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    return Handler
