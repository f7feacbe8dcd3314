"""The backends that hold on this machine; each one that does not is told in a warning, never passed over."""

import warnings

import pytest

from nightsmith.sandboxes.base import Sandbox
from nightsmith.sandboxes.choice import SANDBOXES, unusable

ISOLATING = [name for name, sandbox in SANDBOXES.items() if sandbox.isolates]


@pytest.fixture(scope="session", params=ISOLATING)
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """One backend after the other. That none holds is a failure of its own (the test of what is chosen)."""
    reason = unusable(request.param)
    if reason is not None:
        warnings.warn(f"UNTESTED: the sandbox {request.param} does not work here: {reason}", stacklevel=1)
        pytest.skip(f"{request.param}: {reason}")
    return SANDBOXES[request.param]
