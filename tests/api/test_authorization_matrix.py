"""Every root field and every argument that takes an id, asked by everybody: who is refused, how, and what it changes.

What a new field has to declare is in `tests/harness/matrix.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest_asyncio

from models.ids import Prefix, decode_id
from models.permissions import (
    PROJECT_PERMISSIONS,
    ROLE_PERMISSIONS,
    TOKEN_SCOPES,
    Permission,
    Role,
    TokenScope,
)
from tests.harness import matrix
from tests.harness import matrix_world as worlds
from tests.harness.client import GraphQLClient
from tests.harness.matrix_calls import Answer, Call, Caller, ask, ask_all, strangers
from tests.harness.matrix_cast import (
    MALFORMED,
    Cast,
    field,
    ids_of,
    kinds_of,
    lacking,
    like_nothing,
    open_cast,
    script,
    session,
    together,
)
from tests.harness.matrix_documents import (
    IdArgument,
    RootField,
    deep_selection,
    input_places,
    root_fields,
    texts_like_ids,
)
from tests.harness.matrix_world import World

SETTINGS = {"ALLOWED_ORIGINS": matrix.APP}

FIELDS = root_fields()
PUBLIC_FIELDS = [each for each in FIELDS if each.permission is None]
GUARDED_FIELDS = [each for each in FIELDS if each.permission is not None]

UNAUTHORIZED = frozenset({"UNAUTHORIZED"})
FORBIDDEN = frozenset({"FORBIDDEN"})
NOT_FOUND = frozenset({"NOT_FOUND"})
INVALID = frozenset({"VALIDATION_ERROR"})


@pytest_asyncio.fixture(scope="module")
async def cast(client: GraphQLClient, settings_env: dict[str, str]) -> AsyncIterator[Cast]:
    async with open_cast(client, settings_env) as opened:
        yield opened


def user_may(permission: Permission | None) -> bool:
    return permission is None or permission in ROLE_PERMISSIONS[Role.USER]


# -- the declarations


def test_each_id_argument_says_what_it_takes() -> None:
    for asked in FIELDS:
        for argument in asked.id_arguments:
            assert kinds_of(asked, argument)
    assert set(texts_like_ids()) == set(matrix.NOT_IDS)


def test_public_fields_are_so_for_a_reason() -> None:
    assert {each.key for each in PUBLIC_FIELDS} == set(matrix.PUBLIC)


def test_nothing_is_declared_of_what_is_not_there() -> None:
    keys = {each.key for each in FIELDS}
    arguments = {(each.key, argument.path) for each in FIELDS for argument in each.id_arguments}
    for table in (
        matrix.ID_ARGUMENTS,
        matrix.QUIET,
        matrix.INVALID,
        matrix.QUIET_FOR_ADMINISTRATORS,
        matrix.OWN_ONLY,
        matrix.TELLS_IDLE,
    ):
        assert set(table) <= arguments
    assert set(matrix.SAMPLES) <= input_places()
    assert keys >= matrix.SPENDERS
    assert {key for key, _ in matrix.ACCEPTED} <= keys


def test_each_kind_of_id_can_be_made() -> None:
    assert {kind.prefix for kind in worlds.MAKERS} == set(Prefix)
    assert set(matrix.NODE_READERS) == set(worlds.MAKERS)


# -- those who are nobody, or are so no longer


async def test_nobody_is_asked_to_sign_in_unless_the_field_is_public(cast: Cast) -> None:
    calls = [cast.call(Caller("nobody"), asked, ids_of(asked, cast.owner)) for asked in GUARDED_FIELDS]
    expect_none(strangers(zip(calls, await cast.witness.refused(calls), strict=True), UNAUTHORIZED))


async def test_public_fields_answer_nobody(cast: Cast) -> None:
    for asked in PUBLIC_FIELDS:
        someone = await cast.person()
        answer = await ask(
            cast.client, cast.call(Caller("nobody"), asked, ids_of(asked, cast.owner), person=someone.person)
        )
        assert answer.codes <= accepted(asked), (asked.key, str(answer))
        if any(not kinds_of(asked, argument)[0].is_public for argument in asked.id_arguments):
            assert not answer.it or not any(answer.it), (asked.key, str(answer))


async def test_whoever_was_somebody_is_refused_by_every_field(cast: Cast) -> None:
    callers = await cast.ended()
    calls = [cast.call(caller, asked, ids_of(asked, cast.owner)) for caller in callers for asked in FIELDS]
    expect_none(strangers(zip(calls, await cast.witness.refused(calls), strict=True), UNAUTHORIZED))


# -- tokens


async def test_tokens_without_the_scope_are_refused_even_for_what_is_their_owners(cast: Cast) -> None:
    calls = []
    for world, name in ((cast.owner, "owner"), (cast.admin, "administrator")):
        callers = {scope: await script(f"{name}'s {scope} token", world, scope) for scope in TokenScope}
        calls += [
            cast.call(callers[scope], asked, ids_of(asked, world), person=world.person)
            for asked in GUARDED_FIELDS
            for scope in lacking(asked.permission, TOKEN_SCOPES)
        ]
    expect_none(strangers(zip(calls, await cast.witness.refused(calls), strict=True), FORBIDDEN))


async def test_tokens_for_a_project_do_not_reach_what_is_beside_it(cast: Cast) -> None:
    project = await cast.owner.make(worlds.PROJECT)
    caller = await script("token for another project", cast.owner, TokenScope.WRITE, project)
    outside = [each for each in GUARDED_FIELDS if each.permission not in PROJECT_PERMISSIONS]
    calls = [cast.call(caller, asked, ids_of(asked, cast.owner)) for asked in outside]
    expect_none(strangers(zip(calls, await cast.witness.refused(calls), strict=True), FORBIDDEN))
    inside = [each for each in GUARDED_FIELDS if each.permission in PROJECT_PERMISSIONS]
    expect_none(await differences(cast, caller, cast.owner, cast.owner, inside))


async def test_node_shows_each_kind_to_its_readers_only(cast: Cast) -> None:
    owner, admin = cast.owner, cast.admin
    callers = [
        Caller("nobody"),
        session("owner", owner),
        session("other user", cast.other),
        session("administrator", admin),
        await script("owner's READ token", owner, TokenScope.READ),
        await script("owner's WRITE token", owner, TokenScope.WRITE),
        await script("administrator's READ token", admin, TokenScope.READ),
        await script("administrator's ADMIN token", admin, TokenScope.ADMIN),
        await script(matrix.PROJECTS_TOKEN, owner, TokenScope.WRITE, owner.ids[worlds.PROJECT]),
        await script("token for another project", owner, TokenScope.WRITE, await owner.make(worlds.PROJECT)),
    ]
    kinds = list(worlds.MAKERS)
    wanted = [owner.ids[kind] for kind in kinds]
    one, many = field("Query.node"), field("Query.nodes")
    for caller in callers:
        shown = [
            wanted[place] if caller.name in matrix.NODE_READERS[kind] else None for place, kind in enumerate(kinds)
        ]
        calls = [cast.call(caller, one, {"id": each}, selection="{ id }") for each in wanted]
        calls.append(cast.call(caller, many, {"ids": wanted}, selection="{ id }"))
        *singles, together = await cast.witness.refused(calls)
        assert [each.it and each.it["id"] for each in singles] == shown, caller
        assert [each and each["id"] for each in together.it] == shown, caller


# -- other users


async def test_what_is_anothers_answers_like_what_does_not_exist(cast: Cast) -> None:
    guarded = [each for each in FIELDS if user_may(each.permission)]
    expect_none(await differences(cast, session("other user", cast.other), cast.other, cast.owner, guarded))


async def test_what_only_administrators_may_is_forbidden_to_others_whatever_the_id(cast: Cast) -> None:
    calls = [
        cast.call(session(name, world), asked, ids_of(asked, cast.owner), person=world.person)
        for name, world in (("owner", cast.owner), ("other user", cast.other))
        for asked in GUARDED_FIELDS
        if not user_may(asked.permission)
    ]
    assert calls
    expect_none(strangers(zip(calls, await cast.witness.refused(calls), strict=True), FORBIDDEN))


async def test_what_is_personal_is_not_for_administrators_either(cast: Cast) -> None:
    caller = session("administrator", cast.admin)
    found = await differences(cast, caller, cast.admin, cast.owner, FIELDS, personal_only=True)
    expect_none(found)


async def test_ids_of_nothing_are_not_found_by_administrators(cast: Cast) -> None:
    """Administrators see everything, so only what is not there is told apart."""
    caller = session("administrator", cast.admin)
    expect_none(await differences(cast, caller, cast.admin, None, FIELDS))


# -- those who may


async def test_owners_may_do_what_is_theirs_to_do(cast: Cast) -> None:
    calls = []
    for asked in FIELDS:
        if user_may(asked.permission):
            actor = await cast.person() if asked.key in matrix.SPENDERS else cast.owner
            calls += await allowed_calls(cast, session("owner", actor), asked, actor, actor)
    answers = await ask_all(cast.client, calls)
    expect_none(unexpected(calls, answers))


async def test_administrators_may_do_it_for_others(cast: Cast) -> None:
    calls = []
    for asked in FIELDS:
        actor = await cast.person(Role.ADMIN) if asked.key in matrix.SPENDERS else cast.admin
        calls += await allowed_calls(cast, session("administrator", actor), asked, actor, cast.owner)
    answers = await ask_all(cast.client, calls)
    expect_none(unexpected(calls, answers))


async def test_tokens_with_the_scope_may_do_what_their_owner_may(cast: Cast) -> None:
    calls = []
    for name, world in (("owner", cast.owner), ("administrator", cast.admin)):
        callers = {scope: await script(f"{name}'s {scope} token", world, scope) for scope in TokenScope}
        for asked in GUARDED_FIELDS:
            scope = TOKEN_SCOPES[asked.permission] if asked.permission else None
            # Tokens with ADMIN are worth something to administrators only.
            if scope is not None and (scope is TokenScope.ADMIN) is (world is cast.admin):
                calls += await allowed_calls(cast, callers[scope], asked, world, world)
    answers = await ask_all(cast.client, calls)
    expect_none(unexpected(calls, answers))


# -- what answers hold


# An administrator who lets the medium of somebody else be read has a reading, and that is theirs, with all it says.
OWN_BY_READING = ("Query.ocrJobs", "Query.documents")


async def test_no_answer_holds_anything_of_anothers(cast: Cast) -> None:
    project = await cast.owner.make(worlds.PROJECT)
    mine = session("owner", cast.owner)
    callers = [
        (session("other user", cast.other), cast.other),
        (await script("administrator's READ token", cast.admin, TokenScope.READ), cast.admin),
    ]
    hidden = [each for each in cast.owner.made if each not in cast.owner.shared]
    secrets = [cast.owner.mark, cast.owner.person.email, cast.owner.person.username, *hidden]
    for caller, world in callers:
        for asked, answer in await deep_answers(cast, caller, world):
            if world is cast.admin and asked.key in OWN_BY_READING:
                continue
            assert [secret for secret in secrets if secret in answer.text] == [], asked.key
    # Other tests did much since: this one is on the first page.
    await cast.owner.make(worlds.AUDIT_EVENT)
    # The owner's own answers hold it all, so the queries above would have found it.
    seen = " ".join(answer.text for _, answer in await deep_answers(cast, mine, cast.owner))
    shown = {Prefix(decode_id(each)[0]) for each in cast.owner.made if each in seen}
    assert shown == set(Prefix)
    # A token for one project sees none of the others, nor of what is its owner's besides.
    narrow = await script("token for another project", cast.owner, TokenScope.WRITE, project)
    known = {project, cast.owner.ids[worlds.USER], *cast.owner.public}
    beside = [each for each in cast.owner.made if each not in known]
    for asked, answer in await deep_answers(cast, narrow, cast.owner):
        assert [each for each in beside if each in answer.text] == [], asked.key
        assert cast.owner.person.email not in answer.text, asked.key


async def test_a_shared_delivery_shows_each_only_what_it_did_for_them(cast: Cast) -> None:
    asked = field("Query.webhookDelivery")
    selection = "{ message effects { message project { id } } }"
    for world in (cast.owner, cast.other):
        call = cast.call(session("one of two", world), asked, {"id": cast.shared_delivery}, selection=selection)
        effects = (await ask(cast.client, call)).it["effects"]
        assert effects == [{"message": f"effect {world.mark}", "project": {"id": world.ids[worlds.PROJECT]}}]


# -- how it is asked


def expect_none(found: list[str]) -> None:
    assert not found, "\n".join(found)


async def differences(
    cast: Cast,
    caller: Caller,
    world: World,
    foreign: World | None,
    fields: Iterable[RootField],
    *,
    personal_only: bool = False,
) -> list[str]:
    """Where a foreign id is told apart from one of nothing, or is not refused; `world` is the caller's own.

    Without a foreign world only ids of nothing are asked for. Nothing may change.
    """
    probed: list[tuple[RootField, IdArgument, bool, list[Call]]] = []
    for asked in fields:
        for argument in asked.id_arguments:
            place = (asked.key, argument.path)
            for kind in kinds_of(asked, argument):
                is_personal = kind.is_personal or place in matrix.OWN_ONLY
                if personal_only and not is_personal:
                    continue
                hidden = matrix.HIDDEN.get(kind, kind)
                probes = {} if foreign is None else {f"{hidden} of another": foreign.ids[hidden]}
                if place in matrix.TELLS_IDLE or (hidden.is_shared and hidden is kind):
                    probes = {}
                probes |= like_nothing(kind, kinds_of(asked, argument), (foreign or world).ids[hidden])
                calls = [
                    probe_call(cast, caller, asked, argument, world, about=about, probe=probe)
                    for about, probe in probes.items()
                ]
                is_quiet = place in matrix.QUIET or (foreign is None and place in matrix.QUIET_FOR_ADMINISTRATORS)
                probed.append((asked, argument, is_quiet, calls))
    flat = [call for *_, calls in probed for call in calls]
    answers = dict(zip(map(id, flat), await cast.witness.refused(flat), strict=True))
    found = []
    for asked, argument, is_quiet, calls in probed:
        told = [(call, answers[id(call)]) for call in calls]
        found += misfits(asked, argument, told, is_quiet=is_quiet)
    return found


def probe_call(
    cast: Cast, caller: Caller, asked: RootField, argument: IdArgument, world: World, *, about: str, probe: str
) -> Call:
    """A call with one id in question; all others are the caller's own, in the same list too."""
    own = ids_of(asked, world, required_only=True, chosen=argument.path)
    ids = {**own, argument.path: argument.given(*own_beside(asked, argument, world), probe)}
    return cast.call(caller, asked, ids, person=world.person, about=f"{argument.path}: {about}", probe=probe)


def own_beside(asked: RootField, argument: IdArgument, world: World) -> list[str]:
    """In a list, what is the caller's own stands beside the id in question."""
    return [world.ids[kinds_of(asked, argument)[0]]] if argument.is_list else []


def misfits(asked: RootField, argument: IdArgument, told: list[tuple[Call, Answer]], *, is_quiet: bool) -> list[str]:
    """Answers that differ, or are no refusals. Quiet arguments refuse malformed ids only."""
    is_silent = asked.key in matrix.SILENT
    malformed = [each for each in told if each[0].about.endswith(MALFORMED)]
    existing = [each for each in told if each not in malformed]
    found = [
        "told apart: " + " | ".join(f"{call}: {answer}" for call, answer in group)
        for group in ((existing, malformed) if is_quiet else (told,))
        if len({answer.text for _, answer in group}) > 1
    ]
    refusing = malformed if is_quiet else told
    if is_silent:
        found += [f"{call}: {answer}" for call, answer in refusing if answer.codes or _holds_something(answer)]
    else:
        found += strangers(refusing, INVALID if (asked.key, argument.path) in matrix.INVALID else NOT_FOUND)
    return found


def _holds_something(answer: Answer) -> bool:
    """Whether there is an object, in a list in the last place, which is where the id in question stood."""
    return (answer.it[-1] if isinstance(answer.it, list) else answer.it) is not None


async def allowed_calls(cast: Cast, caller: Caller, asked: RootField, actor: World, target: World) -> list[Call]:
    """A field with objects of somebody, once for each kind that its arguments take; commands get new ones."""
    is_command = asked.root == "Mutation"
    calls: list[Call] = []
    for chosen in matrix.ALTERNATIVES.get(asked.key, ("",)):
        arguments = together(asked, chosen)
        for number in range(max([1, *(len(kinds_of(asked, each)) for each in arguments)])):
            ids = {}
            for argument in arguments:
                kinds = kinds_of(asked, argument)
                kind = kinds[min(number, len(kinds) - 1)]
                is_own = kind.is_personal or (asked.key, argument.path) in matrix.OWN_ONLY
                source = actor if is_own else target
                ids[argument.path] = argument.given(
                    await source.make(kind) if is_command or kind not in source.ids else source.ids[kind]
                )
            calls.append(cast.call(caller, asked, ids, person=actor.person, about=f"{len(calls)}" if calls else ""))
    return calls


def accepted(asked: RootField) -> set[str]:
    """Codes that a field may answer with to those who may ask it."""
    return {code for key, code in matrix.ACCEPTED if key == asked.key}


def unexpected(calls: list[Call], answers: list[Answer]) -> list[str]:
    """Answers with errors that nobody has given a reason for."""
    return [
        f"{call}: {answer}"
        for call, answer in zip(calls, answers, strict=True)
        if not answer.codes <= accepted(call.field)
    ]


PUBLIC_IN_DEPTH = frozenset({"Query.incident", "Query.statusPage"})
"""Public queries that nothing of anybody may be in; the catalogue may show what others made of their documents."""


async def deep_answers(cast: Cast, caller: Caller, world: World) -> list[tuple[RootField, Answer]]:
    """All that every query answers with, as many objects deep as the limits of documents allow."""
    queries = [
        each
        for each in FIELDS
        if each.root == "Query"
        and (each.key in PUBLIC_IN_DEPTH if each.permission is None else user_may(each.permission))
    ]
    answers = await asyncio.gather(*(deepest(cast, caller, world, asked) for asked in queries))
    return list(zip(queries, answers, strict=True))


async def deepest(cast: Cast, caller: Caller, world: World, asked: RootField) -> Answer:
    """The answer to the deepest selection that is within the limits."""
    ids = {path: each for path, each in ids_of(asked, world).items() if not path.startswith("filter.")}
    for depth in (4, 3, 2, 1):
        selection = deep_selection(asked.field.type, depth=depth)
        answer = await ask(cast.client, cast.call(caller, asked, ids, person=world.person, selection=selection))
        if answer.codes != {"VALIDATION_ERROR"} or "VALIDATION_ERROR" in accepted(asked):
            assert answer.codes <= accepted(asked) | FORBIDDEN | NOT_FOUND, (asked.key, str(answer))
            return answer
    raise AssertionError(f"{asked.key}: no deep selection is within the limits")
