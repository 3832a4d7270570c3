"""The second factor as its owner, and whoever helps them, switches it on and off.

Invariant: a secret and recovery codes are in one answer each and in no later one. What is allowed is decided in
`resolvers/second_factor.py`; signing in with a code is `schema/sign_in.py`'s.
"""

from __future__ import annotations

from typing import Annotated

import strawberry

from models.permissions import Permission
from resolvers import second_factor
from schema.context import Context
from schema.permissions import requires

Info = strawberry.Info[Context, None]

PROOF = (
    "Your password. It may be left out within five minutes of signing in, and is where an account has none: sign in "
    "again then."
)
CODE = "The code that the app shows, or one of your recovery codes, which is used up by it."
CODES = (
    "Ten codes that each stand in for the app once. They are shown only now; case, spaces and hyphens do not matter."
)


@strawberry.input(description="Proof that a second factor may be prepared.")
class EnrollTotpInput:
    """What proves the owner."""

    password: str | None = strawberry.field(default=None, description=PROOF)


@strawberry.type(description="A secret for an app that shows codes (RFC 6238: SHA-1, six digits, every 30 seconds).")
class EnrollTotpPayload:
    """The secret, shown once."""

    secret: str = strawberry.field(description="The secret in base32, for typing it in. It is shown only now.")
    uri: str = strawberry.field(description="The same as an `otpauth` address, which opens the app on a phone.")
    qr_code_svg: str = strawberry.field(description="That address as a QR code: an SVG element, for a page.")


@strawberry.input(description="The first code of the app.")
class ConfirmTotpInput:
    """The first code."""

    code: str = strawberry.field(description="The six digits that the app shows.")


@strawberry.type(description="The second factor is on.")
class ConfirmTotpPayload:
    """What came of it."""

    recovery_codes: list[str] = strawberry.field(description=CODES)
    revoked_sessions: int = strawberry.field(description="How many other sessions have ended by it.")


@strawberry.input(description="Proof that the second factor may be switched off.")
class DisableTotpInput:
    """What proves the owner."""

    password: str | None = strawberry.field(default=None, description=PROOF)
    code: str = strawberry.field(description=CODE)


@strawberry.type(description="The second factor is off.")
class DisableTotpPayload:
    """What came of it."""

    revoked_sessions: int = strawberry.field(description="How many other sessions have ended by it.")


@strawberry.input(description="Proof that recovery codes may be replaced.")
class RenewRecoveryCodesInput:
    """What proves the owner."""

    password: str | None = strawberry.field(default=None, description=PROOF)
    code: str = strawberry.field(description=CODE)


@strawberry.type(description="The recovery codes are others now.")
class RenewRecoveryCodesPayload:
    """The new ones."""

    recovery_codes: list[str] = strawberry.field(description=CODES)


@strawberry.input(description="Whose second factor is lost.")
class ResetTwoFactorInput:
    """Whose."""

    user_id: strawberry.ID = strawberry.field(description="The user, who is not you.")


@strawberry.type(description="The second factor of a user is off.")
class ResetTwoFactorPayload:
    """What came of it."""

    revoked_sessions: int = strawberry.field(description="How many sessions of the user have ended by it.")


@strawberry.type
class SecondFactorMutation:
    """What can be done with second factors."""

    @strawberry.mutation(
        description="Prepare a second factor: it counts once `confirmTotp` has seen a code of it, and voids one that "
        "waits for that. CONFLICT when one is on, and, with `details.reason` `emailUnconfirmed`, before the e-mail "
        "address is confirmed. RATE_LIMIT_EXCEEDED after too many wrong passwords.",
        extensions=[requires(Permission.ACCOUNT_WRITE)],
    )
    async def enroll_totp(
        self, info: Info, input: Annotated[EnrollTotpInput, strawberry.argument(description="The proof.")]
    ) -> EnrollTotpPayload:
        """A secret that waits."""
        enrolment = await second_factor.enrol(info.context.actor, input.password)
        return EnrollTotpPayload(secret=enrolment.secret, uri=enrolment.uri, qr_code_svg=enrolment.qr_code_svg)

    @strawberry.mutation(
        description="Switch the second factor on by the first code of the app. Ends all other sessions; a letter tells "
        "you. VALIDATION_ERROR for a wrong code, RATE_LIMIT_EXCEEDED after five of them in fifteen minutes, CONFLICT "
        "when nothing waits to be confirmed.",
        extensions=[requires(Permission.ACCOUNT_WRITE)],
    )
    async def confirm_totp(
        self, info: Info, input: Annotated[ConfirmTotpInput, strawberry.argument(description="The code.")]
    ) -> ConfirmTotpPayload:
        """The factor, on."""
        confirmed = await second_factor.confirm(info.context.actor, input.code)
        return ConfirmTotpPayload(recovery_codes=confirmed.recovery_codes, revoked_sessions=confirmed.revoked_sessions)

    @strawberry.mutation(
        description="Switch the second factor off, and void its recovery codes. Ends all other sessions; a letter "
        "tells you. VALIDATION_ERROR for a wrong password or code, RATE_LIMIT_EXCEEDED after too many, CONFLICT when "
        "none is on.",
        extensions=[requires(Permission.ACCOUNT_WRITE)],
    )
    async def disable_totp(
        self, info: Info, input: Annotated[DisableTotpInput, strawberry.argument(description="The proof.")]
    ) -> DisableTotpPayload:
        """The factor, off."""
        ended = await second_factor.disable(info.context.actor, password=input.password, code=input.code)
        return DisableTotpPayload(revoked_sessions=ended)

    @strawberry.mutation(
        description="Make ten new recovery codes in the place of all that you have; a letter tells you. Refused like "
        "`disableTotp`.",
        extensions=[requires(Permission.ACCOUNT_WRITE)],
    )
    async def renew_recovery_codes(
        self, info: Info, input: Annotated[RenewRecoveryCodesInput, strawberry.argument(description="The proof.")]
    ) -> RenewRecoveryCodesPayload:
        """Ten others."""
        renewed = await second_factor.renew_recovery_codes(info.context.actor, password=input.password, code=input.code)
        return RenewRecoveryCodesPayload(recovery_codes=renewed)

    @strawberry.mutation(
        description="Take the second factor of somebody away who lost phone and codes: for administrators, who have "
        "made sure that it is them. Ends all sessions of the user; a letter tells them. CONFLICT for your own, and "
        "when there is none.",
        extensions=[requires(Permission.USER_WRITE)],
    )
    async def reset_two_factor(
        self, info: Info, input: Annotated[ResetTwoFactorInput, strawberry.argument(description="Whose.")]
    ) -> ResetTwoFactorPayload:
        """The factor, off."""
        return ResetTwoFactorPayload(revoked_sessions=await second_factor.reset(info.context.actor, input.user_id))
