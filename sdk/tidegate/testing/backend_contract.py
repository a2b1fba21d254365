"""The contract of a runtime backend: what `Model` promises, whichever library runs the model.

A backend's author brings the models of `MODELS` in the backend's own format and runs every check on them:

    @pytest.mark.parametrize("name", CHECKS)
    def test_contract(name, tmp_path):
        CHECKS[name](Subject(load=..., load_file=..., file=...), tmp_path)

A check raises AssertionError when the promise is broken. Nothing here needs pytest.
"""

from __future__ import annotations

from tidegate.testing import backend_lifetime, backend_refusals, backend_values
from tidegate.testing.backend_subject import BIAS, MODELS, WEIGHTS, Check, Subject

__all__ = ["BIAS", "CHECKS", "MODELS", "WEIGHTS", "Check", "Subject"]

CHECKS: dict[str, Check] = {**backend_values.CHECKS, **backend_refusals.CHECKS, **backend_lifetime.CHECKS}
"""Every check by name."""
