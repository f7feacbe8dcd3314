"""One client of the OpenAI protocol for every planner: the embedded server, or any by URL.

httpx itself, not the `openai` package: that takes 0.9 s to import (httpx 0.1 s), and one endpoint of it is needed.
"""

import asyncio
import ipaddress
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx

from nightsmith.agent.chat_format import BrokenOff, Completion, Message, Style, completion, request, streamed
from nightsmith.model.planner_server import ADAPTER, ensure
from nightsmith.model.pull import PlannerUnavailable
from nightsmith.record.errors import NightsmithError

_BUSY = (429, 500, 502, 503, 504)
"""What a server answers for a while: too many requests, restarts, a worker that died."""
MOST_WAIT_S = 60.0
"""Longest wait that a server may ask for between two attempts."""


@dataclass(frozen=True)
class _Server:
    """Where to ask, this time."""

    url: str
    token: str | None
    model: str


@dataclass
class ChatBackend:
    """Asks a planner for one JSON object at a time."""

    url: str | None = None
    """Base URL up to and including `/v1`; null: the embedded planner."""
    model: str | None = None
    """Name of the model on that server; null: the first one that it lists."""
    token: str | None = None
    """Bearer token, from the environment."""
    adapter: Path | None = ADAPTER
    """Adapter of the embedded planner; null: the base alone."""
    timeout_s: float = 300.0
    """Seconds without a byte after which a server counts as gone."""
    attempts: int = 4
    """Times a server that is busy or does not answer is asked."""
    backoff_s: float = 0.5
    """Seconds before it is asked again; doubled each time."""
    style: Style = field(default_factory=Style)
    """How the server is spoken to."""

    def __post_init__(self) -> None:
        """Take the URL with or without its last slash."""
        self.url = self.url.rstrip("/") if self.url else None

    async def complete(
        self,
        messages: list[Message],
        schema: dict[str, Any],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Completion:
        """Ask for one JSON object of `schema`. The caller validates it: not every server holds a model to it.

        Raises PlannerUnavailable when the server cannot be reached, refuses, or answers outside the protocol.
        """
        limits: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        body = request(messages, schema, self.style, **limits)
        started = time.monotonic()
        answer = await self._ask(body)
        return completion(answer, self.style, time.monotonic() - started)

    async def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        problem, asks_to_wait = "", 0.0
        for attempt in range(self.attempts):
            if attempt:
                await asyncio.sleep(min(MOST_WAIT_S, max(self.backoff_s * 2 ** (attempt - 1), asks_to_wait)))
            try:
                server = await self._server()
                return await self._post(server, "/chat/completions", {**body, "model": server.model})
            except (httpx.TransportError, BrokenOff) as error:  # the embedded one may just have left: it is started
                problem, asks_to_wait = f"{type(error).__name__}: {error}", 0.0
            except _Busy as busy:
                problem, asks_to_wait = str(busy), busy.wait_s
        raise PlannerUnavailable(
            f"The planner at {self.url or 'the embedded server'} did not answer in {self.attempts} attempts. Last: "
            f"{problem}. Start it, or change planner.url in nightsmith.toml; the study can then be resumed."
        )

    async def _server(self) -> _Server:
        if self.url is None:
            endpoint = await asyncio.to_thread(ensure, self.adapter)
            return _Server(f"{endpoint.url}/v1", endpoint.token, "planner")
        if self.model is None:
            listed = await self._post(_Server(self.url, self.token, ""), "/models", None)
            self.model = _first_model(listed, self.url)
        return _Server(self.url, self.token, self.model)

    async def _post(self, server: _Server, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """POST `body`, or GET without one. Proxies of the environment are for remote servers only."""
        headers = {"Authorization": f"Bearer {server.token}"} if server.token else {}
        how: dict[str, Any] = {
            "timeout": httpx.Timeout(self.timeout_s, connect=10),
            "trust_env": not is_loopback(server.url),
            "verify": httpx.URL(server.url).scheme != "http",  # certificates take 20 ms to load, plain HTTP has none
        }
        async with (
            httpx.AsyncClient(headers=headers, **how) as client,
            client.stream("POST" if body else "GET", server.url + path, json=body) as response,
        ):
            if response.status_code == 200 and "text/event-stream" in response.headers.get("content-type", ""):
                return await streamed(response.aiter_lines())
            await response.aread()
        return _answer(server.url, response)


class _Busy(Exception):
    """The server asks to come again."""

    def __init__(self, response: httpx.Response):
        """`wait_s` is what its Retry-After header asks for, in seconds; a date there is not read."""
        super().__init__(f"HTTP {response.status_code}: {response.text[:200]}")
        after = response.headers.get("retry-after", "")
        self.wait_s = float(after) if after.isdecimal() else 0.0


def _answer(url: str, response: httpx.Response) -> dict[str, Any]:
    """The JSON of a whole answer."""
    if response.status_code in _BUSY:
        raise _Busy(response)
    if response.status_code != 200:
        raise PlannerUnavailable(_refusal(url, response))
    try:
        return cast(dict[str, Any], response.json())
    except ValueError:
        raise PlannerUnavailable(f"{url} answered no JSON: {response.text[:200]!r}.") from None


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine by `localhost` or a loopback address; nothing is looked up."""
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_local(url: str, *, allow_remote: bool) -> str:
    """Return `url`, or raise NightsmithError where goals would leave this machine and nobody allowed it."""
    if httpx.URL(url).scheme not in ("http", "https"):
        raise NightsmithError(f"planner.url is {url!r}: it must begin with http:// or https://, and end in /v1.")
    if httpx.URL(url).userinfo:
        raise NightsmithError(
            "planner.url holds a user or a password, and it is shown and kept with decisions. Leave them out, and put "
            "a token into the environment variable that planner.token_env names."
        )
    if not allow_remote and not is_loopback(url):
        raise NightsmithError(
            f"planner.url is {url}, which is not on this machine: goals, settings and results of studies would be sent "
            "there. Set allow_remote_planner = true in nightsmith.toml to allow it, or give a loopback URL."
        )
    return url


def _first_model(listed: dict[str, Any], url: str) -> str:
    try:
        return str(listed["data"][0]["id"])
    except (KeyError, IndexError, TypeError):
        raise PlannerUnavailable(f"{url}/models lists no model. Set planner.model in nightsmith.toml.") from None


def _refusal(url: str, response: httpx.Response) -> str:
    if response.status_code in (401, 403):
        mend = "Put its token into the environment variable that planner.token_env names (NIGHTSMITH_PLANNER_TOKEN)."
    else:
        mend = (
            "See the server's log. It must serve /v1/chat/completions with response_format json_schema, or with strict "
            'tools (planner.answer_by = "tool" in nightsmith.toml).'
        )
    return f"The planner at {url} refused with HTTP {response.status_code}: {response.text[:300]} {mend}"
