"""The plain process: limits on resources and nothing else. Its program can reach all that its user can."""

from dataclasses import dataclass

from nightsmith.sandboxes.base import SandboxSpec
from nightsmith.sandboxes.guarding import Plan, resource_limits
from nightsmith.sandboxes.runtime import environment


@dataclass(frozen=True)
class PlainProcess:
    """No sandbox. Only where a person allows it."""

    name: str = "process"
    isolates: bool = False
    mend: str = ""

    def lacking(self) -> str | None:
        """It needs nothing."""
        return None

    def command(self, spec: SandboxSpec, argv: tuple[str, ...]) -> tuple[str, ...]:
        """A guard that only sets limits."""
        plan = Plan(
            argv=argv, env=environment(spec, tmp=None), limits=resource_limits(spec.limits), drop_capabilities=False
        )
        return plan.command()
