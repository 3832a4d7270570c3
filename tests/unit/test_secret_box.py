"""Sealed values: what does not open and says so quietly, and the move to a new key while people change values."""

from __future__ import annotations

import base64
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.doctor import check_secrets
from adapters.secret_box import CannotOpen, SecretBox, Tampered, UnknownKey, kid_of
from models import sealed
from models.sealed import (
    CONNECTION_TOKEN,
    DEPLOYMENT_ENVIRONMENT,
    ENVIRONMENT_VALUE,
    PREVIOUS_WEBHOOK_SECRET,
    SEALED,
    TOTP_SECRET,
    WEBHOOK_SECRET,
    KeyCount,
    Place,
    SealedColumn,
)
from resolvers.key_rotation import rotate
from settings import Settings
from tests.harness.databases import new_database
from tests.harness.processes import CLI, child_environment

OLD, NEW = {"old": secrets.token_bytes(32)}, {"new": secrets.token_bytes(32)}
BOX = SecretBox(OLD)
PLACE = Place("environment_variables", "sealed_value", UUID(int=7))
SECRET = "correct horse battery"

places = st.builds(Place, table=st.text(), column=st.text(), row_id=st.uuids())
# Anything that a setting can hold as a key id: no comma and no colon, but dots.
kids = st.text(st.characters(exclude_characters=",:", exclude_categories=["Cs"]), min_size=1, max_size=20)


# -- what does not open


@given(st.text(), st.data())
@settings(deadline=None)
def test_no_changed_bit_opens(plaintext: str, data: st.DataObject) -> None:
    text = bytearray(BOX.seal(plaintext, place=PLACE).encode())
    position = data.draw(st.integers(0, len(text) - 1))
    text[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CannotOpen):
        BOX.open(text.decode("utf-8", "replace"), place=PLACE)


@given(st.text(), places, places)
@settings(deadline=None)
def test_nothing_opens_in_another_place(plaintext: str, sealed_for: Place, opened_in: Place) -> None:
    text = BOX.seal(plaintext, place=sealed_for)
    if sealed_for == opened_in:
        assert BOX.open(text, place=opened_in) == plaintext
    else:
        with pytest.raises(Tampered):
            BOX.open(text, place=opened_in)


def test_places_that_read_alike_are_not_the_same() -> None:
    text = BOX.seal(SECRET, place=Place("ab", "c", UUID(int=1)))
    with pytest.raises(Tampered):
        BOX.open(text, place=Place("a", "bc", UUID(int=1)))


def test_a_text_that_names_another_key_does_not_open_even_if_the_keys_are_equal() -> None:
    box = SecretBox({"one": OLD["old"], "two": OLD["old"]})
    text = box.seal(SECRET, place=PLACE)
    with pytest.raises(Tampered):
        box.open(text.replace("v1.one.", "v1.two."), place=PLACE)


def test_a_key_that_is_gone_is_named() -> None:
    text = BOX.seal(SECRET, place=PLACE)
    with pytest.raises(UnknownKey, match="'old'") as caught:
        SecretBox(NEW).open(text, place=PLACE)
    assert caught.value.kid == "old"


def test_another_key_of_the_same_id_does_not_open() -> None:
    text = BOX.seal(SECRET, place=PLACE)
    with pytest.raises(Tampered):
        SecretBox({"old": NEW["new"]}).open(text, place=PLACE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        SECRET,
        "v1.old",
        "v1..AAAA",
        "v1.old.",
        "v1.old.AAAA",
        f"v2.old.{'A' * 64}",
        "v1.old.===",
        f"v1.old.{'é' * 64}",
    ],
)
def test_what_was_not_sealed_here_does_not_open(text: str) -> None:
    with pytest.raises(Tampered):
        BOX.open(text, place=PLACE)


def test_a_sealed_value_has_one_spelling() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    text = BOX.seal("1", place=PLACE)  # 29 bytes, so that the last character has bits to spare
    spellings = [text[:-1] + last for last in alphabet] + [text + end for end in ("=", "==", "\n", "A")]
    opening = []
    for spelling in spellings:
        try:
            opening.append((spelling, BOX.open(spelling, place=PLACE)))
        except Tampered:
            continue
    assert opening == [(text, "1")]


def test_a_ring_without_keys_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one key"):
        SecretBox({})


@pytest.mark.parametrize("plaintext", [b"secret\xff", "secret\ud800"])
def test_what_is_no_text_is_refused_without_being_shown(plaintext: bytes | str) -> None:
    with pytest.raises(ValueError, match="not text") as caught:
        BOX.seal(plaintext, place=PLACE)
    assert caught.value.__context__ is None  # the decoder's error holds the value


def test_no_error_and_no_repr_shows_a_value_or_a_key() -> None:
    text = BOX.seal(SECRET, place=PLACE)
    shown = [repr(BOX), str(BOX)]
    for box, given_text, place in [
        (SecretBox(NEW), text, PLACE),
        (BOX, text, Place("deployments", "sealed_environment", UUID(int=7))),
        (BOX, SECRET, PLACE),
    ]:
        with pytest.raises(CannotOpen) as caught:
            box.open(given_text, place=place)
        shown += [repr(caught.value), str(caught.value)]
    key = OLD["old"]
    forbidden = [SECRET, text, repr(key), key.hex(), base64.b64encode(key).decode()]
    assert not [text for text in shown for secret in forbidden if secret in text]


# -- what opens


@given(st.text(), places, st.dictionaries(kids, st.binary(min_size=32, max_size=64), min_size=1, max_size=4))
@settings(deadline=None)
def test_what_was_sealed_opens_whatever_the_order_of_keys(
    plaintext: str, place: Place, keyring: dict[str, bytes]
) -> None:
    newest = next(iter(keyring))
    text = SecretBox(keyring).seal(plaintext, place=place)
    assert kid_of(text) == newest
    assert SecretBox(keyring).open(text, place=place) == plaintext
    turned = SecretBox(dict(reversed(keyring.items())))
    assert turned.open(text, place=place) == plaintext
    assert turned.needs_rotation(text) == (turned.newest_kid != newest)


def test_bytes_are_sealed_as_the_text_they_are() -> None:
    assert BOX.open(BOX.seal("schlüssel".encode(), place=PLACE), place=PLACE) == "schlüssel"


def test_equal_values_look_different_each_time() -> None:
    texts = {BOX.seal(SECRET, place=PLACE) for _ in range(100)}
    assert len({text[:30] for text in texts}) == 100


def test_the_sealing_key_serves_no_other_purpose() -> None:
    """Derived, so that what signs tokens and links is not what seals."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    payload = base64.urlsafe_b64decode(BOX.seal(SECRET, place=PLACE).rpartition(".")[2] + "==")
    with pytest.raises(InvalidTag):
        AESGCM(OLD["old"]).decrypt(payload[:12], payload[12:], None)


# -- rotation, on PostgreSQL


@pytest_asyncio.fixture
async def scratch_url(postgres_url: str) -> AsyncIterator[str]:
    """A database with the sealed columns and nothing around them."""
    async with new_database(postgres_url, "sealed") as url:
        connection = await asyncpg.connect(url, timeout=10)
        for column in SEALED:
            await connection.execute(f"CREATE TABLE IF NOT EXISTS {column.table} ({column.id_column} uuid PRIMARY KEY)")
            await connection.execute(f"ALTER TABLE {column.table} ADD COLUMN {column.column} text")
        await connection.close(timeout=5)
        yield url


@pytest_asyncio.fixture
async def scratch(scratch_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to it."""
    connection = await asyncpg.connect(scratch_url, timeout=10, command_timeout=10)
    yield connection
    await connection.close(timeout=5)


async def store(
    connection: asyncpg.Connection, column: SealedColumn, values: Mapping[UUID, str], box: SecretBox
) -> None:
    await connection.executemany(
        f"INSERT INTO {column.table} ({column.id_column}, {column.column}) VALUES ($1, $2)",
        [(row_id, box.seal(value, place=column.place(row_id))) for row_id, value in values.items()],
    )


async def stored(connection: asyncpg.Connection, column: SealedColumn) -> dict[UUID, str]:
    return dict(
        await connection.fetch(
            f"SELECT {column.id_column}, {column.column} FROM {column.table} WHERE {column.column} IS NOT NULL"
        )
    )


async def opened(connection: asyncpg.Connection, column: SealedColumn, keyring: dict[str, bytes]) -> dict[UUID, str]:
    box = SecretBox(keyring)
    texts = await stored(connection, column)
    return {row_id: box.open(text, place=column.place(row_id)) for row_id, text in texts.items()}


def some_values(number: int) -> dict[UUID, str]:
    return {uuid4(): f"value {index}" for index in range(number)}


async def test_every_sealed_column_of_the_database_is_rotated(db: asyncpg.Connection) -> None:
    found = await db.fetch(
        """SELECT table_name, column_name, data_type FROM information_schema.columns
           WHERE table_schema = 'public' AND column_name LIKE 'sealed\\_%'"""
    )
    assert {(row["table_name"], row["column_name"]) for row in found} == {
        (column.table, column.column) for column in SEALED
    }
    assert {row["data_type"] for row in found} == {"text"}
    assert await sealed.existing(db) == list(SEALED)
    for column in SEALED:
        key = await db.fetchval(
            """SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
               WHERE indrelid = to_regclass($1) AND indisprimary""",
            column.table,
        )
        assert key == column.id_column


async def test_all_values_move_to_the_newest_key(scratch: asyncpg.Connection) -> None:
    values = {column: some_values(3) for column in SEALED}
    values[ENVIRONMENT_VALUE] = some_values(1_203)  # more than two batches
    for column in SEALED:
        await store(scratch, column, values[column], BOX)
    await scratch.execute("INSERT INTO deployments VALUES (gen_random_uuid(), NULL)")
    assert await sealed.count_by_key(scratch) == [
        KeyCount(ENVIRONMENT_VALUE, "old", 1_203),
        KeyCount(DEPLOYMENT_ENVIRONMENT, "old", 3),
        KeyCount(CONNECTION_TOKEN, "old", 3),
        KeyCount(TOTP_SECRET, "old", 3),
        KeyCount(WEBHOOK_SECRET, "old", 3),
        KeyCount(PREVIOUS_WEBHOOK_SECRET, "old", 3),
    ]

    rotations = await rotate(scratch, SecretBox(NEW | OLD))

    assert [(rotation.resealed, rotation.left, rotation.unopened) for rotation in rotations] == [
        (1_203, 0, ()),
        *[(3, 0, ())] * (len(SEALED) - 1),
    ]
    await scratch.execute("DELETE FROM deployments WHERE sealed_environment IS NULL")
    for column in SEALED:
        assert await opened(scratch, column, NEW) == values[column]


async def test_a_second_rotation_changes_nothing(scratch: asyncpg.Connection) -> None:
    await store(scratch, CONNECTION_TOKEN, some_values(3), BOX)
    await rotate(scratch, SecretBox(NEW | OLD))
    before = await stored(scratch, CONNECTION_TOKEN)
    rotations = await rotate(scratch, SecretBox(NEW | OLD))
    assert [rotation.resealed for rotation in rotations] == [0] * len(SEALED)
    assert await stored(scratch, CONNECTION_TOKEN) == before


class Interrupted:
    """A connection that lets something else happen right before each statement that begins in a certain way."""

    def __init__(self, connection: asyncpg.Connection, prefix: str, happens: Callable[[], Awaitable[None]]) -> None:
        self._connection = connection
        self._prefix = prefix
        self._happens = happens

    async def fetch(self, query: str, *values: object) -> Any:
        if query.startswith(self._prefix):
            await self._happens()
        return await self._connection.fetch(query, *values)

    async def fetchrow(self, query: str, *values: object) -> Any:
        return await self._connection.fetchrow(query, *values)

    async def fetchval(self, query: str, *values: object) -> object:
        return await self._connection.fetchval(query, *values)


async def test_a_change_by_a_user_during_rotation_stays(scratch: asyncpg.Connection, scratch_url: str) -> None:
    values = some_values(3)
    await store(scratch, ENVIRONMENT_VALUE, values, BOX)
    changed, *others = values
    user = await asyncpg.connect(scratch_url, timeout=10)
    changes = 0

    async def change_once() -> None:
        nonlocal changes
        changes += 1
        if changes == 1:  # the process of the user has the old ring still
            text = BOX.seal("changed", place=ENVIRONMENT_VALUE.place(changed))
            await user.execute("UPDATE environment_variables SET sealed_value = $1 WHERE id = $2", text, changed)

    rotations = await rotate(Interrupted(scratch, "WITH given", change_once), SecretBox(NEW | OLD))

    await user.close(timeout=5)
    assert rotations[0].resealed == 3
    expected = {changed: "changed", **{row_id: values[row_id] for row_id in others}}
    assert await opened(scratch, ENVIRONMENT_VALUE, NEW) == expected


async def test_a_row_that_is_deleted_during_rotation_does_not_come_back(scratch: asyncpg.Connection) -> None:
    await store(scratch, ENVIRONMENT_VALUE, some_values(2), BOX)

    async def delete_all() -> None:
        await scratch.execute("DELETE FROM environment_variables")

    rotations = await rotate(Interrupted(scratch, "WITH given", delete_all), SecretBox(NEW | OLD))
    assert (rotations[0].resealed, rotations[0].left) == (0, 0)
    assert await stored(scratch, ENVIRONMENT_VALUE) == {}


async def test_rotation_waits_for_no_lock_and_reports_what_was_in_use(
    scratch: asyncpg.Connection, scratch_url: str
) -> None:
    values = some_values(3)
    await store(scratch, ENVIRONMENT_VALUE, values, BOX)
    user = await asyncpg.connect(scratch_url, timeout=10)
    async with user.transaction():
        await user.execute("SELECT 1 FROM environment_variables WHERE id = $1 FOR UPDATE", next(iter(values)))
        rotations = await rotate(scratch, SecretBox(NEW | OLD))
        assert (rotations[0].resealed, rotations[0].left) == (2, 1)
    await user.close(timeout=5)
    assert [rotation.left for rotation in await rotate(scratch, SecretBox(NEW | OLD))] == [0] * len(SEALED)
    assert await opened(scratch, ENVIRONMENT_VALUE, NEW) == values


class Killed(Exception):
    """The end of a rotation that did not get to its own."""


async def test_a_rotation_that_was_killed_goes_on_where_it_was(scratch: asyncpg.Connection) -> None:
    values = some_values(1_100)
    await store(scratch, ENVIRONMENT_VALUE, values, BOX)
    batches = 0

    async def die_at_the_second() -> None:
        nonlocal batches
        batches += 1
        if batches == 2:
            raise Killed

    with pytest.raises(Killed):
        await rotate(Interrupted(scratch, "WITH given", die_at_the_second), SecretBox(NEW | OLD))
    assert [(count.kid, count.values) for count in await sealed.count_by_key(scratch)] == [("new", 500), ("old", 600)]
    assert (await rotate(scratch, SecretBox(NEW | OLD)))[0].resealed == 600
    assert await opened(scratch, ENVIRONMENT_VALUE, NEW) == values


async def test_what_does_not_open_is_left_alone_and_named(scratch: asyncpg.Connection) -> None:
    good = some_values(2)
    await store(scratch, ENVIRONMENT_VALUE, good, BOX)
    lost, plain = uuid4(), uuid4()
    await store(scratch, ENVIRONMENT_VALUE, {lost: SECRET}, SecretBox({"lost": secrets.token_bytes(32)}))
    await scratch.execute("INSERT INTO environment_variables VALUES ($1, $2)", plain, SECRET)
    before = await stored(scratch, ENVIRONMENT_VALUE)

    rotation = (await rotate(scratch, SecretBox(NEW | OLD)))[0]

    assert (rotation.resealed, rotation.left) == (2, 0)
    assert {unopened.row_id for unopened in rotation.unopened} == {lost, plain}
    assert not [unopened for unopened in rotation.unopened if SECRET in unopened.reason]
    after = await stored(scratch, ENVIRONMENT_VALUE)
    assert {row_id: after[row_id] for row_id in (lost, plain)} == {row_id: before[row_id] for row_id in (lost, plain)}
    assert [(count.kid, count.values) for count in await sealed.count_by_key(scratch)] == [
        ("lost", 1),
        ("new", 2),
        (None, 1),
    ]


async def test_key_ids_with_dots_are_told_apart(scratch: asyncpg.Connection) -> None:
    """`v1.a.b.…` is sealed with `a.b`; a look at its beginning would say `a`."""
    dotted, plain = {"a.b": secrets.token_bytes(32)}, {"a": secrets.token_bytes(32)}
    values = some_values(2)
    await store(scratch, ENVIRONMENT_VALUE, values, SecretBox(dotted))
    assert (await rotate(scratch, SecretBox(plain | dotted)))[0].resealed == 2
    assert await opened(scratch, ENVIRONMENT_VALUE, plain) == values


async def test_a_database_that_was_never_migrated_has_nothing_sealed(postgres_url: str) -> None:
    async with new_database(postgres_url, "bare") as url:
        connection = await asyncpg.connect(url, timeout=10)
        assert await sealed.count_by_key(connection) == []
        assert await rotate(connection, BOX) == []
        await connection.close(timeout=5)


# -- the command


def rotate_keys(
    database_url: str, keyring: Mapping[str, bytes], base_settings: Mapping[str, str], data_dir: Path
) -> subprocess.CompletedProcess[str]:
    ring = ",".join(f"{kid}:{base64.b64encode(key).decode()}" for kid, key in keyring.items())
    environment = child_environment(
        {**base_settings, "DATABASE_URL": database_url, "SECRET_KEYS": ring, "DATA_DIR": str(data_dir)}
    )
    return subprocess.run(
        [sys.executable, str(CLI), "rotate-keys"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_the_command_counts_and_fails_until_everything_opened(
    scratch: asyncpg.Connection, scratch_url: str, base_settings: dict[str, str], tmp_path: Path
) -> None:
    await store(scratch, ENVIRONMENT_VALUE, some_values(2), BOX)
    lost = uuid4()
    await store(scratch, CONNECTION_TOKEN, {lost: SECRET}, SecretBox({"lost": secrets.token_bytes(32)}))

    failed = rotate_keys(scratch_url, NEW | OLD, base_settings, tmp_path)

    assert failed.returncode == 1
    assert f"oauth_connections {lost}: SECRET_KEYS holds no key 'lost'" in failed.stderr
    assert failed.stdout.splitlines() == [
        "Before:",
        "  environment_variables old: 2",
        "  oauth_connections lost: 1",
        "After:",
        "  environment_variables new: 2",
        "  oauth_connections lost: 1",
        "environment_variables: 2 sealed anew with new",
        "deployments: 0 sealed anew with new",
        "oauth_connections: 0 sealed anew with new",
        "users: 0 sealed anew with new",
        *["webhook_endpoints: 0 sealed anew with new"] * 2,
    ]
    assert SECRET not in failed.stdout + failed.stderr

    await scratch.execute("DELETE FROM oauth_connections")
    done = rotate_keys(scratch_url, NEW, base_settings, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


async def test_the_doctor_tells_keys_that_are_missing_from_keys_that_can_go(
    scratch: asyncpg.Connection, scratch_url: str, base_settings: dict[str, str], tmp_path: Path
) -> None:
    def with_keys(keyring: Mapping[str, bytes]) -> Settings:
        ring = ",".join(f"{kid}:{base64.b64encode(key).decode()}" for kid, key in keyring.items())
        return Settings.model_validate({
            **{name.lower(): value for name, value in base_settings.items()},
            "database_url": scratch_url,
            "secret_keys": ring,
            "data_dir": tmp_path,
        })  # fmt: skip

    assert (await check_secrets(with_keys(NEW))).detail == "none yet"
    await store(scratch, ENVIRONMENT_VALUE, some_values(2), SecretBox(OLD))
    lost = await check_secrets(with_keys(NEW))
    assert (lost.ok, lost.detail, lost.advice) == (False, "2 with old", "put back into SECRET_KEYS: old")
    older = await check_secrets(with_keys(NEW | OLD))
    assert older.ok
    assert "rotate-keys" in older.detail
