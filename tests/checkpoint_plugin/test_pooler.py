"""Behind a real pgbouncer that gives each transaction another connection; skipped where none is installed."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import StoreUnreadable
from checkpoint_plugin.store import RunHistory, Store
from hookspecs import NodeSnapshot
from tests.checkpoint_plugin.test_plugin import WHOLE, pipeline, runner
from tests.checkpoint_plugin.test_store import cut, definition
from tests.postgres import account, execute

SETTINGS = """
[databases]
* = host={host} port={port} user=postgres
[pgbouncer]
unix_socket_dir = {folder}
listen_addr =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 100
logfile = {folder}/log
"""
START_SECONDS = 5
CONNECTIONS = 2
RUNS = 5
SAVES = 10


def find_pgbouncer() -> str:
    found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if found is None:
        pytest.skip("pgbouncer is not installed")
    return found


@pytest.fixture(params=["transaction", "session"])
def pooled_url(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[str]:
    """The fresh database through a pooler, without the parameter that says so."""
    program = find_pgbouncer()
    folder = Path(tempfile.mkdtemp(prefix="wfpb-", dir="/tmp"))
    parts = urlsplit(postgres_url)
    host = parse_qs(parts.query).get("host", [parts.hostname])[0]
    size = CONNECTIONS if request.param == "transaction" else 20
    text = SETTINGS.format(host=host, port=parts.port or 5432, folder=folder, mode=request.param, size=size)
    (folder / "settings.ini").write_text(text, encoding="utf-8")
    user = account()
    if user is not None:
        for found in (folder, folder / "settings.ini"):
            os.chown(found, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    process = subprocess.Popen([program, "-q", str(folder / "settings.ini")], user=user, cwd=folder)
    url = f"postgresql://postgres@{parts.path}?host={folder}&port=6432"
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                asyncio.run(execute(url, "SELECT 1"))
                break
            except (OSError, asyncpg.PostgresError):
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        shutil.rmtree(folder)


async def test_many_runs_share_few_connections(pooled_url: str) -> None:
    url = f"{pooled_url}&pgbouncer=1"

    async def execute_run(run_id: str) -> None:
        store = Store(locate(url), create=True)
        await store.insert_job(run_id, definition())
        history = RunHistory(run_id, 1, 1)
        for number in range(SAVES):
            size = 2_000_000 if number == SAVES // 2 else 10  # in several messages, within one transaction
            node = NodeSnapshot("a", "running", state=os.urandom(size))
            await store.save(history, cut(node, run_id=run_id), str(number))
            found = await store.restore(RunHistory(run_id, 1, 1), None)
            assert found is not None
            assert found.nodes[0].state == node.state
        await store.close()

    await asyncio.gather(*(execute_run(f"r{number}") for number in range(RUNS)))


async def test_whole_runs(pooled_url: str) -> None:
    url = f"{pooled_url}&pgbouncer=1"
    options = {"every_firing": True, "events": True}
    runs = (runner(url).run(pipeline(), enable={"checkpoint": options}, run_id=f"r{number}") for number in range(RUNS))
    assert [result.outputs for result in await asyncio.gather(*runs)] == [WHOLE] * RUNS
    assert (await runner(url).resume("r0", graph=pipeline())).outputs == WHOLE


async def test_a_url_that_does_not_say_so_is_told_what_to_say(pooled_url: str) -> None:
    store = Store(locate(pooled_url), create=True)
    with pytest.raises(StoreUnreadable, match=r"startup parameter.*pgbouncer=1"):
        await store.jobs()
    await store.close()
