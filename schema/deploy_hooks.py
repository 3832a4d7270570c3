"""`POST /hooks/deploy?key=…`: a deployment for whoever has the secret address; for hosts other than GitHub and timers.

The key is in the query, which no log of ours shows. Bodies are not read. An unknown key answers like a page that is
not there.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from models.ids import Prefix, encode_id
from resolvers import projects
from schema.middleware import origin_of

PATH = "/hooks/deploy"


def routes() -> list[BaseRoute]:
    """The route of deploy hooks."""
    return [Route(PATH, _deploy, methods=["POST"])]


async def _deploy(request: Request) -> JSONResponse:
    key = request.query_params.get("key", "")
    deployment_id = await projects.deploy_by_hook(key, origin_of(request.scope))
    return JSONResponse({"deploymentId": encode_id(Prefix.DEPLOYMENT, deployment_id)}, status_code=202)
