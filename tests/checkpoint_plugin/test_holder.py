"""Whether a process that holds a run is gone, by what `/proc` tells: a living one is never taken for gone."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from checkpoint_plugin.tables import holder
from checkpoint_plugin.tables.holder import Holder

STAT = "({name}) S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 {started} 1 1"


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `/proc` that shows this process alone."""
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("6d5e3a\n")
    add_process(tmp_path, os.getpid(), 100)
    (tmp_path / "self").symlink_to(str(os.getpid()))
    (tmp_path / "self/ns").mkdir()
    (tmp_path / "self/ns/pid").symlink_to("pid:[4026531836]")
    (tmp_path / "self/ns/time").symlink_to("time:[4026531834]")
    use(tmp_path, monkeypatch)
    return tmp_path


def use(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder, "PROC", proc)
    holder._this_process.cache_clear()
    monkeypatch.setattr(holder, "_this_process", holder._this_process.__wrapped__)


def add_process(proc: Path, pid: int, started: int) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "stat").write_text(f"{pid} {STAT.format(name='a ) name', started=started)}")


def ended_process() -> int:
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as child:
        return child.pid


def test_a_living_process_that_is_hidden_is_not_gone(proc: Path) -> None:
    """Mounted with `hidepid`, as systemd does it for ProtectProc=, `/proc` shows no process of another user."""
    there = replace(Holder.here(), pid=os.getppid())
    assert not there.is_gone
    (proc / str(there.pid)).mkdir()  # hidepid=1: the folder is there, and may not be read
    assert not there.is_gone
    assert replace(there, pid=ended_process()).is_gone
    assert replace(there, pid=2**40).is_gone, "no process has such a number"


def test_a_number_that_another_process_has_now_is_that_of_one_that_is_gone(proc: Path) -> None:
    add_process(proc, os.getppid(), 200)
    there = replace(Holder.here(), pid=os.getppid(), started=200.0)
    assert not there.is_gone
    assert replace(there, started=199.0).is_gone
    assert not replace(there, started=None).is_gone


@pytest.mark.parametrize("space", ["pid", "time"])
def test_a_process_whose_number_or_start_is_counted_otherwise_is_not_gone(space: str, proc: Path) -> None:
    """In another space of time `/proc` tells another start of the same process."""
    add_process(proc, os.getppid(), 200)
    there = replace(Holder.here(), pid=os.getppid(), started=199.0)
    link = proc / "self/ns" / space
    link.unlink()
    link.symlink_to(f"{space}:[1]")
    assert not there.is_gone
    assert there.host != Holder.here().host


def test_a_system_without_spaces_of_time_tells_who_is_gone(proc: Path) -> None:
    (proc / "self/ns/time").unlink()
    assert replace(Holder.here(), pid=ended_process()).is_gone


def test_nobody_is_gone_by_the_proc_of_another_space_of_process_numbers(proc: Path) -> None:
    """There a number is that of another process, or of none."""
    add_process(proc, os.getppid(), 200)
    add_process(proc, 2**22 + 1, 100)
    (proc / "self").unlink()
    (proc / "self").symlink_to(str(2**22 + 1))  # this process as it is known there
    (proc / "self/ns").mkdir()
    (proc / "self/ns/pid").symlink_to("pid:[4026531836]")
    here = Holder.here()
    assert not here.is_gone
    assert not replace(here, pid=os.getppid(), started=199.0).is_gone


def test_nobody_is_gone_where_there_is_no_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(tmp_path / "none", monkeypatch)
    here = Holder.here()
    assert (here.pid, here.started) == (os.getpid(), None)
    assert not replace(here, pid=ended_process()).is_gone, "its lease says when it is over"
