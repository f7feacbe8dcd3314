"""One client of the OpenAI protocol for every planner: the embedded server, or any by URL.

httpx itself, not the `openai` package: that takes 0.9 s to import (httpx 0.1 s), and one endpoint of it is needed.
"""

import asyncio
import ipaddress
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx

from nightsmith.model.planner_server import ADAPTER, LOGIT_BIAS, ensure
from nightsmith.model.pull import PlannerUnavailable
from nightsmith.record.errors import NightsmithError

Message = dict[str, str]
"""One chat message: role and content."""
_BUSY = (429, 502, 503, 504)


@dataclass(frozen=True)
class Completion:
    """One answer, and what it took."""

    text: str
    truncated: bool
    """Cut at `max_tokens`: its JSON is not whole."""
    prompt_tokens: int
    completion_tokens: int
    wall_s: float
    first_token_s: float | None = None
    """Seconds until the first token, where the server reports them (the embedded one does)."""


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
    attempts: int = 3
    """Times a server that is busy or does not answer is asked."""
    backoff_s: float = 0.5

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
        body: dict[str, Any] = {
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": schema},
            },
        }
        if self.url is None and self.adapter == ADAPTER:
            body["logit_bias"] = [list(pair) for pair in LOGIT_BIAS]
        started = time.monotonic()
        answer = await self._ask(body)
        return _completion(answer, time.monotonic() - started)

    async def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        problem = ""
        for attempt in range(self.attempts):
            await asyncio.sleep(self.backoff_s * attempt)
            try:
                server = await self._server()
                return await self._post(server, "/chat/completions", {**body, "model": server.model})
            except httpx.TransportError as error:  # the embedded one may just have left: the next round starts it
                problem = f"{type(error).__name__}: {error}"
            except _Busy as busy:
                problem = str(busy)
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
        timeout = httpx.Timeout(self.timeout_s, connect=10)
        async with httpx.AsyncClient(headers=headers, timeout=timeout, trust_env=not is_loopback(server.url)) as client:
            response = await client.request("POST" if body else "GET", server.url + path, json=body)
        if response.status_code in _BUSY:
            raise _Busy(f"HTTP {response.status_code}: {response.text[:200]}")
        if response.status_code != 200:
            raise PlannerUnavailable(_refusal(server.url, response))
        try:
            return cast(dict[str, Any], response.json())
        except ValueError:
            raise PlannerUnavailable(f"{server.url} answered no JSON: {response.text[:200]!r}.") from None


class _Busy(Exception):
    """The server asks to come again."""


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
    if not allow_remote and not is_loopback(url):
        raise NightsmithError(
            f"planner.url is {url}, which is not on this machine: goals, settings and results of studies would be sent "
            "there. Set allow_remote_planner = true in nightsmith.toml to allow it, or give a loopback URL."
        )
    return url


def _completion(answer: dict[str, Any], wall_s: float) -> Completion:
    try:
        choice = answer["choices"][0]
        usage = cast(dict[str, Any], answer.get("usage") or {})
        timings = cast(dict[str, Any], answer.get("timings") or {})
        return Completion(
            text=choice["message"]["content"] or "",
            truncated=choice.get("finish_reason") == "length",
            prompt_tokens=usage.get("prompt_tokens", 0),
            completion_tokens=usage.get("completion_tokens", 0),
            wall_s=wall_s,
            first_token_s=timings["prompt_ms"] / 1000 if "prompt_ms" in timings else None,
        )
    except (KeyError, IndexError, TypeError):
        raise PlannerUnavailable(f"The planner's answer is not a chat completion: {str(answer)[:200]}.") from None


def _first_model(listed: dict[str, Any], url: str) -> str:
    try:
        return str(listed["data"][0]["id"])
    except (KeyError, IndexError, TypeError):
        raise PlannerUnavailable(f"{url}/models lists no model. Set planner.model in nightsmith.toml.") from None


def _refusal(url: str, response: httpx.Response) -> str:
    if response.status_code in (401, 403):
        mend = "Put its token into the environment variable that planner.token_env names (NIGHTSMITH_PLANNER_TOKEN)."
    else:
        mend = "See the server's log; it must serve /v1/chat/completions with response_format json_schema."
    return f"The planner at {url} refused with HTTP {response.status_code}: {response.text[:300]} {mend}"
