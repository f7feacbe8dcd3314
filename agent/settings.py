"""Settings: nightsmith.toml, found upwards like .git, then NIGHTSMITH_* variables. Secrets: environment only."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from nightsmith.agent.backends import ChatBackend, is_loopback, require_local
from nightsmith.agent.chat_format import AnswerBy, Effort, Style
from nightsmith.record import settings_file
from nightsmith.record.budget import Budget
from nightsmith.record.digest import Contract
from nightsmith.record.errors import NightsmithError
from nightsmith.trainer.launch.site import LauncherName, SlurmSite


class PlannerSettings(Contract):
    """Which planner decides."""

    url: str | None = None
    """Base URL of an OpenAI-compatible server, ending in /v1; null: the embedded planner."""
    model: str | None = None
    """Name of the model on that server; null: the first one that it lists."""
    token_env: str = "NIGHTSMITH_PLANNER_TOKEN"
    """Environment variable that holds the server's token."""
    reasoning_effort: Effort | None = None
    """How much it thinks before it answers (Small 4: none or high); null: the server's default."""
    answer_by: AnswerBy = "response_format"
    """How it is held to a schema: by the format of its answer, or as arguments of a strict tool."""
    stream: bool = False
    """Whether answers are sent piece by piece."""


class SftSettings(Contract):
    """What fine-tunes with LoRA by `sft`, in studies: arguments of the tool that goals have no words for."""

    backend: Literal["trl", "fused"] = "trl"
    """What trains."""
    first_layer: int = Field(default=0, ge=0)
    """Layers below it carry no adapters; by backend `fused` only."""
    lead_tokens: int = Field(default=0, ge=0)
    """First tokens of each answer that count `lead_weight` times; by backend `fused` only."""
    lead_weight: float = Field(default=1.0, gt=0)
    """Weight of those tokens; the others count once."""

    @property
    def asked(self) -> dict[str, float | int | str]:
        """What differs from the tool's own defaults."""
        return self.model_dump(exclude_defaults=True)


class Settings(Contract):
    """All of nightsmith.toml."""

    planner: PlannerSettings = PlannerSettings()
    """The planner."""
    model: str | None = None
    """Model that is fine-tuned where a goal names none, as a goal would name it; null: SmolLM2-135M-Instruct."""
    sft: SftSettings = SftSettings()
    """What fine-tunes with LoRA in studies."""
    allow_remote_planner: bool = False
    """Whether planner.url may name another machine: goals and results are sent there."""
    budget: Budget | None = None
    """Limits of the account that jobs started by hand draw on."""
    reserved_devices: tuple[str, ...] = ()
    """Devices that no job is given, such as the GPUs that the planner's server runs on; `record.leases` reads it."""
    warm_idle_s: float = Field(default=600, ge=0)
    """Idle seconds after which the process that forks jobs leaves; 0: jobs start cold; `launch.warm` reads it."""
    launcher: LauncherName = "local"
    """Where jobs run: `local` is this machine, `slurm` the cluster of the table [slurm]; `launch.site` reads both."""
    slurm: SlurmSite | None = None
    """What jobs on the cluster are submitted with."""

    def remote_planner(self) -> str | None:
        """URL of the planner where that is on another machine."""
        url = self.planner.url
        return url if url is not None and not is_loopback(url) else None

    def backend(self) -> ChatBackend:
        """Client of the planner. Raises NightsmithError for a remote URL that is not allowed."""
        url = self.planner.url
        if url is None:
            return ChatBackend()
        require_local(url, allow_remote=self.allow_remote_planner)
        planner = self.planner
        style = Style(by=planner.answer_by, effort=planner.reasoning_effort, stream=planner.stream)
        return ChatBackend(url=url, model=planner.model, token=os.environ.get(planner.token_env), style=style)


_PLAIN = tuple(name for name in Settings.model_fields if name not in ("planner", "budget", "slurm", "sft"))
_SLURM = tuple(name for name in SlurmSite.model_fields if name != "kind")


def load_settings(start: Path | None = None) -> Settings:
    """Read the nearest nightsmith.toml from `start` (default: current directory) upwards, then the environment."""
    path = settings_file.find(start)
    values = settings_file.read(path)
    try:
        return Settings.model_validate(_with_environment(values))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise NightsmithError(
            f"Settings ({path or 'NIGHTSMITH_* variables'}): {problems}. "
            f"Allowed: [planner] {', '.join(PlannerSettings.model_fields)}; {', '.join(_PLAIN)}; "
            f"[slurm] {', '.join(_SLURM)}; [sft] {', '.join(SftSettings.model_fields)}; "
            f"[budget] {', '.join(Budget.model_fields)}."
        ) from None


def _with_environment(values: dict[str, Any]) -> dict[str, Any]:
    """NIGHTSMITH_PLANNER_URL and the like, NIGHTSMITH_ALLOW_REMOTE_PLANNER and _MODEL win over the file."""
    planner = dict(values.get("planner") or {})
    for name in PlannerSettings.model_fields:
        given = os.environ.get(f"NIGHTSMITH_PLANNER_{name.upper()}")
        if given:
            planner[name] = given
    named = {name: os.environ.get(f"NIGHTSMITH_{name.upper()}") for name in ("allow_remote_planner", "model")}
    return {**values, "planner": planner, **{name: value for name, value in named.items() if value}}
