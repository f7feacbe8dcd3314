"""Where jobs run: the setting `launcher` of nightsmith.toml, recorded with every start."""

import math
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, TypeAdapter, ValidationError, field_validator

from nightsmith.record.digest import Contract
from nightsmith.record.errors import NightsmithError
from nightsmith.record.settings_file import setting

LauncherName = Literal["local", "slurm"]
Line = Annotated[str, Field(pattern=r"^[^\r\n]*$")]
SLURM_MARGIN_S = 120.0
"""Seconds that Slurm's time limit leaves a job beyond its own, in which it ends itself and writes how."""
OWN_OPTIONS = frozenset({
    "job_name", "time", "nodes", "ntasks", "ntasks_per_node", "cpus_per_task", "gpus_per_node", "output", "error",
    "chdir", "export", "signal", "array", "open_mode", "partition", "account", "qos",
})  # fmt: skip
"""sbatch options that the launcher, or a setting of its own, gives."""


class LocalSite(Contract):
    """This machine."""

    kind: Literal["local"] = "local"
    """Discriminator of the sites."""


class SlurmSite(Contract):
    """A cluster under Slurm; workspace, data and Python environment lie on a file system that its nodes share."""

    kind: Literal["slurm"] = "slurm"
    """Discriminator of the sites."""
    partition: Line | None = None
    """Partition; null: the cluster's default."""
    account: Line | None = None
    """Account that Slurm charges."""
    qos: Line | None = None
    """Quality of service."""
    max_minutes: int | None = Field(default=None, gt=0)
    """Longest time limit that the partition takes; a longer job is refused before it is submitted."""
    options: dict[str, Line | int | bool] = {}
    """Further sbatch options by their long names, e.g. {"mem": "64G", "constraint": "a100"}; true: without a value."""

    @field_validator("options")
    @classmethod
    def _require_foreign(cls, options: dict[str, Any]) -> dict[str, Any]:
        named = {name.strip("-").replace("-", "_"): value for name, value in options.items()}
        wrong = [name for name in named if name in OWN_OPTIONS or not name.isidentifier()]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} cannot be given: it is no long option, or Nightsmith gives it itself")
        return named

    def minutes(self, time_limit_s: float) -> int:
        """Slurm's time limit for a job that ends itself after `time_limit_s` seconds."""
        return math.ceil((time_limit_s + SLURM_MARGIN_S) / 60)


Site = Annotated[LocalSite | SlurmSite, Field(discriminator="kind")]


def chosen(time_limit_s: float) -> LocalSite | SlurmSite:
    """Where a job of this time limit is to run, by settings: `launcher`, and the table `[slurm]`.

    Raises:
        NightsmithError: a setting is wrong, or the job is longer than the site takes.
    """
    name = setting("launcher") or "local"
    if name not in get_args(LauncherName):
        raise NightsmithError(f"launcher is {name!r}. Allowed are {', '.join(get_args(LauncherName))}.")
    if name == "local":
        return LocalSite()
    site = _slurm(setting("slurm") or {})
    if site.max_minutes is not None and site.minutes(time_limit_s) > site.max_minutes:
        raise NightsmithError(
            f"The job may take {site.minutes(time_limit_s)} minutes, {SLURM_MARGIN_S:g} s to end in included; "
            f"max_minutes of [slurm] is {site.max_minutes}. Plan shorter trials, or use another partition."
        )
    return site


def _slurm(table: Any) -> SlurmSite:
    """The table [slurm], or the JSON text of $NIGHTSMITH_SLURM."""
    adapter = TypeAdapter(SlurmSite)
    try:
        return adapter.validate_json(table) if isinstance(table, str) else adapter.validate_python(table)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'slurm'}: {e['msg']}" for e in error.errors()[:5])
        names = ", ".join(name for name in SlurmSite.model_fields if name != "kind")
        raise NightsmithError(f"The settings in [slurm]: {problems}. Allowed: {names}.") from None
