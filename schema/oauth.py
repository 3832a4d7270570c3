"""`/auth/{provider}/callback`: where GitHub and Google send browsers back to, and from where they go on to the app.

Two flows end here: signing in, which is bound to a cookie of the browser, and connecting GitHub, which is bound to a
session and needs none. A state belongs to one of them. Invariants: nothing is proved, connected or opened here; a
browser only carries a code to a page that was allowed when the flow began. No cookie is set.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from errors import NotFound, ValidationFailed
from models.connections import IdentityProvider
from resolvers import github, oauth_sign_in
from schema.credentials import oauth_cookie
from settings import Settings

_MAX_PARAMETER: Final = 2_048
_PROVIDERS: Final = {provider.value.lower(): provider for provider in IdentityProvider}


def routes(settings: Settings) -> list[BaseRoute]:
    """The routes that providers send browsers back to."""
    cookie = oauth_cookie(settings)

    async def callback(request: Request) -> Response:
        provider = _PROVIDERS.get(request.path_params["provider"])
        if provider is None:
            raise NotFound("There is no such provider.")
        parameters = request.query_params
        state = parameters.get("state", "")
        if not state or any(len(value) > _MAX_PARAMETER for value in parameters.values()):
            raise ValidationFailed("This is no answer of a provider's; start again.")
        code, error = parameters.get("code"), parameters.get("error")
        target = await oauth_sign_in.come_back(
            provider,
            state=state,
            code=code,
            error=error,
            issuer=parameters.get("iss"),
            browser=request.cookies.get(cookie),
        )
        if target is None and provider is IdentityProvider.GITHUB:
            target = await github.come_back(state=state, code=code, error=error)
        if target is None:
            raise ValidationFailed("This sign-in was used already, or is too old; start again.")
        return RedirectResponse(target, status_code=303)

    return [Route("/auth/{provider}/callback", callback, methods=["GET"])]
