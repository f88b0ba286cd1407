"""What every test may use: databases come from `tests.postgres`."""

from __future__ import annotations

import importlib.util

pytest_plugins = ["tests.postgres"] if importlib.util.find_spec("tests.postgres") else []
