"""`/auth/github/callback`: where GitHub sends the browser back to, and from where it goes on to the app.

Invariants: the browser proves nothing here and nothing is connected; it only carries a code to a page that was allowed
when the authorization began. No cookie is read or set.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from errors import ValidationFailed
from resolvers import github

_MAX_PARAMETER: Final = 1_024


def routes() -> list[BaseRoute]:
    """The routes that providers send browsers back to."""
    return [Route(github.CALLBACK_PATH, _github_callback, methods=["GET"])]


async def _github_callback(request: Request) -> Response:
    parameters = request.query_params
    state = parameters.get("state", "")
    if not state or any(len(value) > _MAX_PARAMETER for value in parameters.values()):
        raise ValidationFailed("This is no answer of GitHub's; connect GitHub again.")
    target = await github.come_back(state=state, code=parameters.get("code"), error=parameters.get("error"))
    return RedirectResponse(target, status_code=303)
