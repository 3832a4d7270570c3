"""The baseline of `run_list`: a bare Starlette route that answers with the same JSON, made by one SQL statement."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.ids import Prefix, encode_id

SQL = """
SELECT e.id, e.status, e.progress, e.attempt, e.queued_at, e.started_at, e.finished_at, r.items_scraped,
       r.pages_crawled, r.close_reason, t.id AS tool_id, t.slug, t.name AS tool_name, u.id AS user_id, u.username,
       u.name AS user_name
FROM executions e JOIN job_runs r ON r.execution_id = e.id JOIN tools t ON t.id = r.tool_id
JOIN users u ON u.id = e.requested_by_id
WHERE e.owner_id = $1 AND e.kind = 'CRAWL' ORDER BY e.id DESC LIMIT 50
"""


async def runs(request: Request) -> Response:
    """The list."""
    await request.body()
    edges = [
        {
            "node": {
                "id": encode_id(Prefix.RUN, row["id"]),
                "status": row["status"],
                "progress": row["progress"],
                "attempt": row["attempt"],
                "queuedAt": row["queued_at"],
                "startedAt": row["started_at"],
                "finishedAt": row["finished_at"],
                "itemsScraped": row["items_scraped"],
                "pagesCrawled": row["pages_crawled"],
                "closeReason": row["close_reason"],
                "tool": {"id": encode_id(Prefix.TOOL, row["tool_id"]), "slug": row["slug"], "name": row["tool_name"]},
                "requestedBy": {
                    "id": encode_id(Prefix.USER, row["user_id"]),
                    "username": row["username"],
                    "name": row["user_name"],
                },
            }
        }
        for row in await request.app.state.pool.fetch(SQL, UUID(os.environ["BARE_OWNER"]))
    ]
    return Response(orjson.dumps({"data": {"jobRuns": {"edges": edges}}}), media_type="application/json")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Opens the pool."""
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=1, max_size=10) as pool:
        app.state.pool = pool
        yield


async def main() -> None:
    """Serve on a free port and say which, as the API does."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = Starlette(routes=[Route("/graphql", runs, methods=["POST"])], lifespan=lifespan)
    server = uvicorn.Server(uvicorn.Config(app, http="httptools", access_log=False, log_config=None))
    print(orjson.dumps({"event": "api_listening", "port": listener.getsockname()[1]}).decode(), file=sys.stderr)
    await server.serve(sockets=[listener])


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
