"""Access tokens without a database: their form, that what is no token is refused unasked, and what scopes grant."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from strawberry import Schema

from errors import Forbidden, Unauthorized
from models.access_token_queries import KnownToken
from models.permissions import PROJECT_PERMISSIONS, TOKEN_SCOPES, Actor, Origin, Permission, Role, TokenScope
from models.users import Account
from resolvers import access_tokens
from resolvers.access_token_text import hash_of, is_well_formed, new_access_token
from resolvers.access_tokens import TokenCache
from schema import build_schema
from schema.permissions import Requires, check


def required(schema: Schema, kind: str) -> Iterator[tuple[str, Permission]]:
    """Root fields of a kind with the permission that each requires."""
    for name, field in getattr(schema._schema, f"{kind}_type").fields.items():
        for directive in field.extensions["strawberry-definition"].directives:
            if isinstance(directive, Requires):
                yield name, directive.permission


# -- the form


@pytest.mark.parametrize("place", range(4, 40))
def test_a_changed_character_does_not_pass_the_check_sum(place: int) -> None:
    token = new_access_token()
    other = "a" if token[place] != "a" else "b"
    assert not is_well_formed(token[:place] + other + token[place + 1 :])


@pytest.mark.parametrize(
    "text", ["", "swp_", "swp_" + "0" * 36, "swp_" + "a" * 35, "swp_" + "é" * 36, "swp_" + "٣" * 36]
)
def test_what_is_made_up_is_no_token(text: str) -> None:
    assert not is_well_formed(text)


def test_parts_and_additions_are_no_tokens() -> None:
    token = new_access_token()
    spoiled = (token[:-1], token + "0", f" {token}", f"{token}\n", token.upper(), token.replace("swp_", "sws_"))
    assert not any(is_well_formed(text) for text in spoiled)


def test_tokens_have_the_published_form_and_none_is_given_twice() -> None:
    tokens = {new_access_token() for _ in range(500)}
    assert len(tokens) == len({hash_of(token) for token in tokens}) == 500
    assert all(re.fullmatch("swp_[0-9A-Za-z]{36}", token) and is_well_formed(token) for token in tokens)


def test_the_check_sum_is_crc32_in_base_62() -> None:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    token = new_access_token()
    assert sum(digits.index(each) * 62**place for place, each in enumerate(reversed(token[34:]))) == zlib.crc32(
        token[4:34].encode()
    )


async def test_garbage_is_refused_without_asking_anybody() -> None:
    token = new_access_token()
    with pytest.raises(LookupError):
        await access_tokens.authenticate(token, Origin())  # nothing is open here, so this one was looked for
    for text in ("swp_", token[:-1], token[:10] + "!" + token[11:], token[:39] + ("a" if token[39] != "a" else "b")):
        with pytest.raises(Unauthorized) as refused:
            await access_tokens.authenticate(text, Origin())
        assert refused.value.details["reason"] == "invalid"


# -- what is remembered


def known() -> KnownToken:
    account = Account(
        id=uuid4(), email="a@b.c", username="ada", name="Ada", role=Role.USER, created_at=datetime.now(UTC)
    )
    return KnownToken(
        id=uuid4(), account=account, scope=TokenScope.READ, project_ids=None, expires_at=None, is_revoked=False,
        is_noted=True,
    )  # fmt: skip


def test_a_token_is_believed_for_five_seconds_and_no_longer() -> None:
    cache, token = TokenCache(), known()
    cache.put("hash", token, read_at=10.0, changes=cache.changes)
    assert cache.get("hash", now=15.0) is token
    assert cache.get("hash", now=15.01) is None


def test_what_changed_while_it_was_read_is_not_remembered() -> None:
    cache, token, other = TokenCache(), known(), known()
    before = cache.changes
    cache.forget_user(token.account.id)
    cache.put("hash", token, read_at=10.0, changes=before)
    assert cache.get("hash", now=10.0) is None
    cache.put("hash", token, read_at=10.0, changes=cache.changes)
    cache.forget_user(other.account.id)
    assert cache.get("hash", now=10.0) is token
    cache.forget_user(token.account.id)
    assert cache.get("hash", now=10.0) is None


# -- what scopes grant


def actor(scope: TokenScope | None, role: Role = Role.ADMIN, *, narrowed: bool = False) -> Actor:
    return Actor(user_id=uuid4(), role=role, scope=scope, project_ids=frozenset([uuid4()]) if narrowed else None)


def test_every_permission_says_which_scope_grants_it() -> None:
    assert set(TOKEN_SCOPES) == set(Permission)


def test_a_permission_that_the_table_forgot_is_for_sessions_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(TOKEN_SCOPES, Permission.JOB_READ)
    assert not actor(TokenScope.ADMIN).may(Permission.JOB_READ)
    assert actor(None).may(Permission.JOB_READ)


def test_no_mutation_is_for_readers() -> None:
    mutations = list(required(build_schema(), "mutation"))
    assert len(mutations) > 20
    for name, permission in mutations:
        with pytest.raises(Forbidden):
            check(actor(TokenScope.READ), permission)
        assert not actor(TokenScope.READ, narrowed=True).may(permission), name


def test_reading_needs_no_more_than_the_scope_for_it_unless_it_is_an_administrators_or_the_accounts() -> None:
    schema = build_schema()
    fields = [*required(schema, "query"), *required(schema, "subscription")]
    closed = {name for name, permission in fields if not actor(TokenScope.READ).may(permission)}
    for name, permission in fields:
        scope = TOKEN_SCOPES[permission]
        assert (name in closed) is (scope is not TokenScope.READ), name
    assert {"accessTokens", "notifications", "githubConnection", "preferences"} <= closed


def test_no_token_reaches_the_account() -> None:
    for scope in TokenScope:
        for permission in (Permission.ACCOUNT_READ, Permission.ACCOUNT_WRITE):
            assert not actor(scope).may(permission)


def test_wider_scopes_include_the_narrower_and_never_more_than_the_role() -> None:
    for role in Role:
        granted = [{each for each in Permission if actor(scope, role).may(each)} for scope in TokenScope]
        assert granted[0] < granted[1] <= granted[2]
        assert granted[2] <= {each for each in Permission if actor(None, role).may(each)}
    assert not actor(TokenScope.ADMIN, Role.USER).may(Permission.USER_READ)


def test_an_administrators_token_has_their_rights_only_with_the_scope_for_it() -> None:
    assert [actor(scope).is_admin for scope in TokenScope] == [False, False, True]
    assert not actor(TokenScope.ADMIN, narrowed=True).is_admin


def test_a_token_for_projects_reaches_nothing_else() -> None:
    narrowed = actor(TokenScope.WRITE, narrowed=True)
    assert {each for each in Permission if narrowed.may(each)} == PROJECT_PERMISSIONS
    assert not narrowed.covers(None)
    assert not narrowed.covers(uuid4())


def test_views_differ_where_tokens_do() -> None:
    user_id, project = uuid4(), frozenset([uuid4()])
    actors = [
        Actor(user_id=user_id),
        Actor(user_id=user_id, scope=TokenScope.READ),
        Actor(user_id=user_id, scope=TokenScope.READ, project_ids=project),
        Actor(user_id=user_id, role=Role.ADMIN),
        Actor(user_id=user_id, role=Role.ADMIN, scope=TokenScope.ADMIN),
    ]
    assert len({each.view for each in actors}) == len(actors)
