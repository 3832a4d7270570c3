"""Files of a site, a small page and a script of 100 kB, against nginx with one worker that serves the same folder.

Both are asked by the same client (wrk, or one of asyncio where there is none) over a few kept connections, in turn, and
compared by requests per second and by the CPU time of the serving process. Neither compresses on the fly: ours has the
smaller forms in storage, nginx (`gzip_static`) beside the files; plain bytes are asked for. nginx writes no access log.
Without nginx the baseline is a bare ASGI application under uvicorn that answers from memory.
"""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from tests.bench.place import Place, place
from tests.harness.processes import Program
from tests.harness.sites import open_site_desk, write_files
from tests.harness.waiting import eventually

SECONDS = 4
ROUNDS = 3
CONNECTIONS = 8
PATHS = {"page of 2 kB": "/", "script of 100 kB": "/assets/app-BCOJk9TN.js"}

_NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    types {{ text/html html; text/javascript js; }}
    access_log off; sendfile on; tcp_nopush on; keepalive_timeout 75; keepalive_requests 100000000;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    open_file_cache max=1000; open_file_cache_valid 60s;
    server {{
        listen 127.0.0.1:{port}; root {folder}/site; gzip_static on;
        add_header X-Content-Type-Options nosniff;
        location /assets/ {{ add_header Cache-Control "public, max-age=31536000, immutable"; }}
    }}
}}
"""
_BARE = """
import asyncio, pathlib, socket, sys, uvicorn, uvloop
root = pathlib.Path(sys.argv[1])
files = {"/" + str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
files["/"] = files["/index.html"]
async def app(scope, receive, send):
    body = files[scope["path"]]
    headers = [(b"content-type", b"text/html"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
server = uvicorn.Server(uvicorn.Config(app, http="httptools", lifespan="off", access_log=False, log_config=None))
listener = socket.create_server(("127.0.0.1", int(sys.argv[2])))
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(server.serve(sockets=[listener]))
"""


async def main() -> None:
    """Print requests per second and CPU per request of both for each file, and the ratios."""
    async with place() as here:
        host = await _deploy(here)
        async with _baseline(here) as (name, port, process):
            ours = psutil.Process(here.api.pid)
            for what, path in PATHS.items():
                results: dict[str, list[tuple[float, float]]] = {"switchyard": [], name: []}
                for _ in range(ROUNDS):
                    results["switchyard"].append(await _load(here.api.port, host, path, ours))
                    results[name].append(await _load(port, host, path, process))
                middle = {server: sorted(rounds)[ROUNDS // 2] for server, rounds in results.items()}
                for server, (rate, cpu) in middle.items():
                    print(f"{what:17} {server:11} {rate:8.0f} requests/s  {cpu * 1e6:6.0f} µs of CPU per request")
                (rate, cpu), (base_rate, base_cpu) = middle["switchyard"], middle[name]
                print(f"{what:17} ratio to {name}: requests/s {rate / base_rate:.2f}, CPU {cpu / base_cpu:.2f}")


async def _deploy(here: Place) -> str:
    """A site on the API and its files in a folder; the host name of the site."""
    chance = random.Random(1)
    words = [f"word{chance.randrange(1_000)}" for _ in range(16_000)]
    files: dict[str, bytes | str] = {
        "index.html": " ".join(words)[:2_000],
        "assets/app-BCOJk9TN.js": " ".join(words)[:100_000],
    }
    write_files(here.folder / "site", files)
    async with open_site_desk(here.environment, here.folder / "outputs") as desk:
        project = await desk.project()
        await desk.deploy(project, files)
    return f"{project.slug}.localhost"


@asynccontextmanager
async def _baseline(here: Place) -> AsyncIterator[tuple[str, int, psutil.Process]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if nginx is None:
        script = here.folder / "bare.py"
        script.write_text(_BARE)
        program = Program([script, here.folder / "site", str(port)], environment=here.environment, log=_log(here))
        here.programs.append(program)
        await eventually(lambda: _listens(port), 10)
        yield "bare ASGI", port, psutil.Process(program.pid)
        return
    configuration = here.folder / "nginx.conf"
    configuration.write_text(_NGINX.format(folder=here.folder, port=port))
    here.folder.chmod(0o755)  # its worker is somebody else
    process = await asyncio.create_subprocess_exec(nginx, "-c", str(configuration), stderr=sys.stderr)
    try:
        await eventually(lambda: _listens(port), 10)
        (worker,) = psutil.Process(process.pid).children()
        yield "nginx", port, worker
    finally:
        process.terminate()
        await process.wait()


def _log(here: Place) -> Path:
    return here.folder / "bare.log"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def _load(port: int, host: str, path: str, process: psutil.Process) -> tuple[float, float]:
    before = sum(process.cpu_times()[:2])
    wrk = shutil.which("wrk")
    if wrk is not None:
        count, seconds = await _wrk(wrk, port, host, path)
    else:
        count, seconds = await _asyncio_client(port, host, path)
    return count / seconds, (sum(process.cpu_times()[:2]) - before) / count


async def _wrk(wrk: str, port: int, host: str, path: str) -> tuple[int, float]:
    arguments = ("-t", "1", "-c", str(CONNECTIONS), "-d", str(SECONDS), "-H", f"Host: {host}")
    process = await asyncio.create_subprocess_exec(
        wrk, *arguments, f"http://127.0.0.1:{port}{path}", stdout=asyncio.subprocess.PIPE
    )
    output = (await process.communicate())[0].decode()
    assert "Non-2xx" not in output, output
    found = re.search(r"(\d+) requests in ([\d.]+)s", output)
    assert found is not None, output
    return int(found[1]), float(found[2])


async def _asyncio_client(port: int, host: str, path: str) -> tuple[int, float]:
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    started = time.monotonic()

    async def one_connection() -> int:
        count = 0
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() - started < SECONDS:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            count += 1
        writer.close()
        return count

    counts = await asyncio.gather(*(one_connection() for _ in range(CONNECTIONS)))
    return sum(counts), time.monotonic() - started
