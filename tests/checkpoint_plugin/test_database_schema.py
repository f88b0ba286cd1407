"""Stores in schemas of one PostgreSQL database: each sees its own tables only."""

from __future__ import annotations

import asyncio
import json
import uuid
from functools import partial
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import inspect

from checkpoint_plugin.cli.db import db
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import StoreMissing, StoreReadOnly, StoreUnreadable
from checkpoint_plugin.models import Base
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.tables.schema import SCHEMA_VERSION
from hookspecs import NodeSnapshot, RunNotFound
from tests.checkpoint_plugin.roles import MAKE_WORKER, close_with_rights
from tests.checkpoint_plugin.test_migrations import make_older
from tests.checkpoint_plugin.test_plugin import WHOLE, pipeline, runner
from tests.checkpoint_plugin.test_store import cut, definition
from tests.postgres import execute

MANY = 4
TABLES = {table.name for table in Base.metadata.sorted_tables}


async def make(url: str, state: str) -> None:
    """A store with a run `r`."""
    store = Store(locate(url), create=True)
    try:
        await store.insert_job("r", definition())
        await store.save(RunHistory("r", 1, 1), cut(NodeSnapshot("a", "running", state=state)), "1")
    finally:
        await store.close()


async def state_of(url: str) -> Any:
    store = Store(locate(url), create=False)
    try:
        found = await store.restore(RunHistory("r", 1, 1), None)
        assert found is not None
        return found.nodes[0].state
    finally:
        await store.close()


async def tables(url: str, schema: str) -> set[str]:
    store = Store(locate(url), create=False)
    try:
        return set(await store._database.transact(lambda c: inspect(c.core).get_table_names(schema=schema), write=False))
    finally:
        await store.close()


async def test_two_schemas_and_the_public_one_do_not_see_each_other(postgres_url: str) -> None:
    urls = [f"{postgres_url}&schema=One", f"{postgres_url}&schema=two", postgres_url]
    for number, url in enumerate(urls):
        with pytest.raises(StoreMissing, match="holds no store"):
            await state_of(url)
        await make(url, f"of {number}")
    assert [await state_of(url) for url in urls] == ["of 0", "of 1", "of 2"]
    assert [await tables(postgres_url, name) for name in ("One", "two", "public")] == [TABLES] * 3
    assert await tables(postgres_url, "one") == set()


async def test_whole_runs_in_a_schema(postgres_url: str) -> None:
    url = f"{postgres_url}&schema=runs"
    result = await runner(url).run(pipeline(), enable={"checkpoint": {"every_firing": True, "events": True}}, run_id="r")
    assert result.outputs == WHOLE
    assert (await runner(url).resume("r", graph=pipeline())).outputs == WHOLE
    assert await tables(postgres_url, "public") == set()


def test_a_schema_is_upgraded_alone(postgres_url: str) -> None:
    urls = [f"{postgres_url}&schema=one", f"{postgres_url}&schema=two"]

    async def older(url: str) -> None:
        await make(url, "x")
        store = Store(locate(url), create=False)
        await store.transact(make_older)
        await store.close()

    for url in urls:
        asyncio.run(older(url))

    def call(name: str, url: str) -> dict[str, Any]:
        result = CliRunner().invoke(db, [name, "--url", url, "--json"])
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.output)
        return found

    assert call("upgrade", urls[0])["after"] == SCHEMA_VERSION
    assert [call("current", url)["current"] for url in urls] == [True, False]
    with pytest.raises(StoreUnreadable, match=r"workflow db upgrade --url 'postgresql://[^ ]*\?schema=two'"):
        asyncio.run(state_of(urls[1]))
    assert asyncio.run(state_of(urls[0])) == "x"


async def test_many_make_one_schema_at_once(postgres_url: str) -> None:
    url = f"{postgres_url}&schema=runs"
    stores = [Store(locate(url), create=True) for _ in range(MANY)]
    await asyncio.gather(*(store.insert_job(f"r{number}", definition()) for number, store in enumerate(stores)))
    assert len(await stores[0].jobs()) == MANY
    for store in stores:
        await store.close()


async def test_a_role_needs_no_right_to_make_what_is_there(postgres_url: str) -> None:
    url = f"{postgres_url}&schema=runs"
    await make(url, "x")
    owner = Store(locate(url), create=False)

    await close_with_rights(
        owner,
        "GRANT USAGE ON SCHEMA runs TO worker",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA runs TO worker",
    )
    worker = Store(locate(url.replace("postgres@", "worker@", 1)), create=True)
    await worker.insert_job("another", definition())
    await worker.close()


@pytest.mark.parametrize("schema", ["public", "runs"])
async def test_a_store_in_a_schema_that_a_role_may_not_enter_is_not_told_as_none(postgres_url: str, schema: str) -> None:
    url = postgres_url if schema == "public" else f"{postgres_url}&schema={schema}"
    await make(url, "x")
    owner = Store(locate(url), create=False)
    rights = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA"
    await close_with_rights(owner, f"REVOKE ALL ON SCHEMA {schema} FROM PUBLIC", f"{rights} {schema} TO worker")
    worker = Store(locate(url.replace("postgres@", "worker@", 1)), create=True)
    calls = (worker.jobs, worker.layout, worker.upgrade, partial(worker.insert_job, "another", definition()))
    for call in calls:
        with pytest.raises(StoreReadOnly, match=f"may not enter the schema '{schema}'.*GRANT USAGE"):
            await call()
    await execute(postgres_url, f"GRANT USAGE ON SCHEMA {schema} TO worker")
    assert [job.id for job in await worker.jobs()] == ["r"]
    await worker.close()


async def test_a_role_without_the_right_to_make_a_schema_is_told(postgres_url: str) -> None:
    await execute(postgres_url, MAKE_WORKER)
    url = f"{postgres_url}&schema=runs".replace("postgres@", "worker@", 1)
    store = Store(locate(url), create=True)
    with pytest.raises(StoreUnreadable, match="permission denied for database"):
        await store.insert_job("r", definition())
    await store.close()


async def test_behind_a_pooler_the_schema_is_that_of_the_role(postgres_url: str) -> None:
    name = postgres_url.partition("?")[0].rpartition("/")[2]
    url = f"{postgres_url}&schema=runs&pgbouncer=1"
    store = Store(locate(url), create=True)
    with pytest.raises(StoreUnreadable, match=r"ALTER ROLE .* SET search_path = runs"):
        await store.insert_job("r", definition())
    await store.close()
    await execute(postgres_url, "CREATE SCHEMA runs")
    await execute(postgres_url, f"ALTER DATABASE {name} SET search_path = runs")
    await make(url, "x")
    assert await state_of(url) == "x"
    assert await tables(postgres_url, "runs") == TABLES


async def test_a_run_of_another_schema_is_not_there(postgres_url: str) -> None:
    await make(f"{postgres_url}&schema=one", "x")
    store = Store(locate(f"{postgres_url}&schema=two"), create=True)
    with pytest.raises(RunNotFound, match=r"schema=two"):
        await store.load_job("r")
    await store.close()


async def test_a_database_that_lacks_characters_is_refused_before_a_run_needs_one(postgres_url: str) -> None:
    """What a node says when it fails may hold any: to refuse that would lose what the run has done."""
    name = f"l{uuid.uuid4().hex}"
    latin = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    await execute(postgres_url, f"CREATE DATABASE {name} {latin}")
    try:
        head, _, query = postgres_url.partition("?")
        url = f"{head.rpartition('/')[0]}/{name}?{query}"
        with pytest.raises(StoreUnreadable, match=r"LATIN1.*encoding UTF8"):
            await make(url, "x")
        assert await tables(url, "public") == set()
    finally:
        await execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")
