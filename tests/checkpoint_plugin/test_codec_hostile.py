"""A hostile row cannot make anything be called, imported or opened, and takes neither memory nor time."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
def test_hostile_payloads_do_nothing(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    command = [sys.executable, "-m", "tests.checkpoint_plugin.hostile", str(seed), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-4000:]}"
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["events"] == [], f"seed {seed}"
    assert done.stdout.count("\n") == 1, "a pickle was loaded"
    assert found["payloads"] > 1_200
    assert sum(found["read"].values()) == found["payloads"]
    assert found["read"]["MalformedValue"] > 800
    assert sum(found["rows"].values()) == 400
    assert found["rows"]["StoreDamaged"] > 200
