"""The launchers, by the kind of site that they start jobs on."""

from nightsmith.trainer.launch import local, slurm
from nightsmith.trainer.launch.base import Launcher
from nightsmith.trainer.launch.site import LauncherName
from nightsmith.trainer.spec import LaunchSpec

LAUNCHERS: dict[LauncherName, Launcher] = {"local": local, "slurm": slurm}


def launcher_of(spec: LaunchSpec) -> Launcher:
    """The launcher that a start was, or is to be, made with."""
    return LAUNCHERS[spec.site.kind]
