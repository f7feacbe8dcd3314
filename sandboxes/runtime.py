"""Python as it is seen from inside: interpreter, standard library, the system's shared libraries; no packages."""

import os
import sys
import sysconfig
from functools import cache
from pathlib import Path

from nightsmith.sandboxes.base import SandboxSpec

PYTHON = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
"""The interpreter itself, not a virtual environment's link to it."""
ISOLATED = (PYTHON, "-I", "-S", "-B")
"""Python without site-packages, PYTHON* variables and the current folder on its path."""
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "HOME": "/tmp",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


@cache
def python_files() -> tuple[str, ...]:
    """Paths that Python needs, outermost first, none within another."""
    stdlib, library = sysconfig.get_path("stdlib"), sysconfig.get_config_var("LIBDIR")
    needed = {PYTHON, stdlib, sysconfig.get_path("platstdlib"), library, *_LIBRARIES}
    own = [Path(path) for path in needed if path and Path(path).exists()]
    own = [path for path in own if not path.is_relative_to(sys.prefix) or sys.prefix == sys.base_prefix]
    outermost = [path for path in own if not any(other in path.parents for other in own)]
    return tuple(sorted(map(str, outermost)))


@cache
def package_folders() -> tuple[str, ...]:
    """Folders of installed packages within `python_files`; they may hold this project's sources, so they are hidden."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    folders = [
        stdlib / "site-packages",
        stdlib / "dist-packages",
        Path("/usr/lib/python3/dist-packages"),
        *Path("/usr/lib").glob("python3.*/*-packages"),
        *Path("/usr/local/lib").glob("python3.*/*-packages"),
    ]
    return tuple(sorted({str(folder) for folder in folders if folder.is_dir()}))


def readable(spec: SandboxSpec) -> tuple[str, ...]:
    """Everything that can be read inside, before what is hidden."""
    return tuple(dict.fromkeys((*python_files(), *spec.read_only, *spec.python_path)))


def hidden(spec: SandboxSpec) -> tuple[str, ...]:
    """Folders within readable ones that cannot be read: packages that were not chosen, and this project."""
    chosen = {os.path.realpath(path) for path in spec.python_path}
    folders = [folder for folder in package_folders() if os.path.realpath(folder) not in chosen]
    folders += [str(own) for path in spec.python_path if (own := Path(path) / "nightsmith").is_dir()]
    return tuple(folder for folder in folders if any(Path(folder).is_relative_to(path) for path in readable(spec)))


def environment(spec: SandboxSpec, tmp: str | None) -> dict[str, str]:
    """The program's variables; `tmp` is its folder for temporary files, if it has one."""
    return {**_ENVIRONMENT, **({"TMPDIR": tmp} if tmp else {}), **spec.env}
