"""The Python with the shim, started once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kill import rig


@pytest.fixture(scope="package")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.Rig]:
    """Runs subjects under faults; skips where there can be no shim."""
    reason = rig.why_not()
    if reason:
        pytest.skip(reason)
    found = rig.Rig(tmp_path_factory.mktemp("shim"))
    yield found
    found.close()
