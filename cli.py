"""The `switchyard` command: everything a person or a container starts.

`run` is one machine with nothing installed beforehand: it owns an embedded PostgreSQL and Redis and starts the API
and a worker as children. `api` and `worker` are those children, and what production starts. Exit codes: 0 done,
1 it failed, 2 wrong usage or settings. No password is ever an argument, because arguments are public.

Subcommands import their part of the project when they run: loading all of it takes over a second, and `run` starts
this file three times.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import inspect
import os
import re
import secrets
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import maintenance
import settings as settings_module
from adapters import embedded, garbage
from adapters.addresses import host_and_port
from adapters.cancellation import first_error
from adapters.embedded import children, greetings, supervisor
from errors import SwitchyardError
from maintenance import CHECKOUT, PRACTICE_PORT
from settings import Settings, SettingsError, load

READY_SECONDS = 60
DRAIN_SECONDS = 10
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class PortTaken(Exception):
    """Somebody else listens on the port; the message says what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; its exit code."""
    options = _parser().parse_args(argv)
    try:
        code: int = options.command(options)
    except (SettingsError, PortTaken, embedded.FolderBusy) as error:
        print(error, file=sys.stderr)
        return 2
    except (SwitchyardError, embedded.EmbeddedError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="switchyard", description="Crawls, builds, scans and OCR, watched live.")
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, command: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(command=command)
        return sub

    run = add("run", run_all, "Run everything on this machine: databases, API and a worker")
    run.add_argument("--port", type=int, help="port of the API (default: PORT, else 8000)")
    run.add_argument("--data", type=Path, help="folder of all data (default: DATA_DIR, else .switchyard here)")
    run.add_argument("--no-practice-site", action="store_true", help="do not serve the small site to crawl first")
    run.add_argument("--admin-email", default="admin@switchyard.internal", help="administrator made on the first start")
    add("api", serve_api, "Serve the API")
    add("worker", run_worker, "Run a worker")
    proxy = add("egress-proxy", serve_egress_proxy, "Serve the proxy through which contained builds reach the internet")
    proxy.add_argument("--listen", type=host_and_port, default=("0.0.0.0", 3128), metavar="HOST:PORT")  # noqa: S104 - its purpose
    ai_service = add("ai-service", serve_ai_service, "Serve the risk scanner on the contract of the AI service")
    ai_service.add_argument("--listen", type=host_and_port, default=("127.0.0.1", 8090), metavar="HOST:PORT")
    migrate = add("migrate", migrate_database, "Bring the database schema up to date")
    migrate.add_argument("--check", action="store_true", help="only check that every model change has its migration")
    admin = add("create-admin", create_admin, "Make an administrator and print the password")
    admin.add_argument("--email", required=True)
    admin.add_argument("--username", required=True)
    admin.add_argument("--password-stdin", action="store_true", help="read the password from the first line of stdin")
    add("rotate-keys", rotate_keys, "Seal every secret in the database with the newest of SECRET_KEYS")
    schema = add("schema", print_schema, "Print the GraphQL schema")
    schema.add_argument("--check", action="store_true", help="only check that schema.graphql is up to date")
    add("settings", print_settings, "Print every setting with its default, as in .env.example")
    examine = add("doctor", maintenance.doctor, "Check that this machine and the settings can run the service")
    examine.add_argument("--json", action="store_true", help="print the findings as JSON")
    backup = add("backup", maintenance.backup, "Write all rows and files into one file while the service runs")
    backup.add_argument("file", help="where to write; - is stdout")
    backup.add_argument("--data", type=Path, help="the folder of `make run`, instead of DATABASE_URL")
    backup.add_argument(
        "--verify", action="store_true", help="only check that FILE is a whole backup; needs no database"
    )
    restore = add("restore", maintenance.restore, "Put a backup into an empty installation")
    restore.add_argument("file", type=Path)
    restore.add_argument("--data", type=Path, help="a folder for `make run`, instead of DATABASE_URL")
    demo = add("demo", maintenance.demo, "Make sample data: an account that looks lived in")
    demo.add_argument("--data", type=Path, help="the folder of `make run`, instead of DATABASE_URL or the default one")
    demo.add_argument("--yes", action="store_true", help="also where others have work, whose sums will count it too")
    demo.add_argument("--history-only", action="store_true", help="start no run on the practice site")
    demo.add_argument("--password-stdin", action="store_true", help="read the password from the first line of stdin")
    demo.add_argument("--remove", action="store_true", help="remove the sample data with all that its account has")
    retention = add("retention", maintenance.retention, "Remove now what the settings say is old")
    retention.add_argument("--dry-run", action="store_true", help="only say how much would go")
    return parser


# -- run


def run_all(options: argparse.Namespace) -> int:
    """Start databases, API and worker; stop them all on Ctrl-C, SIGTERM or SIGHUP."""
    return asyncio.run(_run_until_signal(options))


async def _run_until_signal(options: argparse.Namespace) -> int:
    programs: list[supervisor.Child] = []
    work = asyncio.create_task(_run_everything(options, programs))
    asked_to_stop = 0

    def stop() -> None:
        nonlocal asked_to_stop
        asked_to_stop += 1
        if asked_to_stop == 1:
            _say("Stopping …")
            work.cancel()
        else:
            for program in programs:
                program.kill()

    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop)
    await asyncio.wait([work])
    if work.cancelled() and asked_to_stop:
        return 0
    work.result()
    return 1


async def _run_everything(options: argparse.Namespace, programs: list[supervisor.Child]) -> None:
    data_dir = (options.data or Path(os.environ.get("DATA_DIR") or CHECKOUT / ".switchyard")).resolve()
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = embedded.FolderLock(data_dir, what="Switchyard")
    async with AsyncExitStack() as stack:
        stack.callback(lock.release)
        _set_defaults(data_dir, options.port)
        waiting = "postgres://waiting", "redis://waiting"
        settings = load(
            database_url=os.environ.get("DATABASE_URL", waiting[0]), redis_url=os.environ.get("REDIS_URL", waiting[1])
        )
        if not children.port_is_free(settings.host, settings.port):
            raise PortTaken(f"Port {settings.port} is in use; choose another one: make run PORT={settings.port + 1}")
        servers = await _start_servers(stack, data_dir)
        scanner_port = _offer_scanner()
        practice_url = None if options.no_practice_site else offer_practice_site()
        settings = load()
        password = await _prepare_database(settings, options.admin_email)
        greeting = greetings.greeting(settings, options.admin_email, password, practice_url)
        starts = {"The API": ["cli.py", "api"], "The worker": ["cli.py", "worker"]}
        if scanner_port is not None:
            starts["The risk scanner"] = ["cli.py", "ai-service", "--listen", f"127.0.0.1:{scanner_port}"]
        if practice_url:
            place = ["--port", str(PRACTICE_PORT), "--folder", str(data_dir / "practice")]
            starts["The practice site"] = ["-m", "tasks.crawl.practice_site", *place]
        for title, arguments in starts.items():
            argv = [sys.executable, *arguments]
            programs.append(supervisor.Child(title, argv, folder=CHECKOUT, announce=_say, drain_seconds=DRAIN_SECONDS))
        try:
            async with asyncio.TaskGroup() as tasks:
                for program in programs:
                    tasks.create_task(program.keep_running())
                for server in servers:
                    tasks.create_task(supervisor.keep_alive(server, announce=_say))
                await supervisor.wait_until_ready(
                    lambda: _is_ready(settings, scanner_port), programs[0], seconds=READY_SECONDS
                )
                _say(greeting)
                greeting = ""
        except BaseExceptionGroup as group:
            raise first_error(group) from None
        finally:
            if greeting and password:
                _say(f"The administrator is made all the same: {options.admin_email}, password {password}")


def _set_defaults(data_dir: Path, port: int | None) -> None:
    """Fill the environment, which the children inherit, with what is not set in it."""
    if port is not None:
        os.environ["PORT"] = str(port)
    os.environ["DATA_DIR"] = str(data_dir)
    os.environ.setdefault("BASE_URL", f"http://localhost:{os.environ.get('PORT', '8000')}")
    os.environ.setdefault("LOG_FORMAT", "console")
    os.environ.setdefault("PYTHONPATH", str(CHECKOUT))
    if "SECRET_KEYS" not in os.environ:
        fresh = f"k{secrets.token_hex(2)}:{base64.b64encode(secrets.token_bytes(32)).decode('ascii')}"
        os.environ["SECRET_KEYS"] = children.private_text(data_dir / "secrets", default=fresh)


async def _start_servers(stack: AsyncExitStack, data_dir: Path) -> list[embedded.PostgresServer | embedded.RedisServer]:
    """Start the servers that the environment does not name; the stack stops Redis first and PostgreSQL last."""
    servers: list[embedded.PostgresServer | embedded.RedisServer] = []
    if "DATABASE_URL" not in os.environ:
        servers.append(embedded.PostgresServer(data_dir))
    if "REDIS_URL" not in os.environ:
        servers.append(embedded.RedisServer(data_dir))
    for server in servers:
        stack.push_async_callback(server.stop)
    await _together([server.start for server in servers])
    for server in servers:
        variable = "DATABASE_URL" if isinstance(server, embedded.PostgresServer) else "REDIS_URL"
        os.environ[variable] = server.url
    return servers


async def _prepare_database(settings: Settings, admin_email: str) -> str | None:
    """Migrate, install the shipped tools, and make the first administrator; the password, once."""
    from models import database
    from resolvers import tools, users

    with database.database_errors(), garbage.seldom():
        applied = await database.migrate(settings.database_url.get_secret_value())
    for name in applied:
        _say(f"Migrated the database: {name}")
    async with database.connected(settings):
        for slug in await tools.install_catalogue():
            _say(f"Installed the tool {slug}")
        if await users.any_admin_exists():
            return None
        return await _create_admin(settings, email=admin_email, username="admin", password=None)


async def _create_admin(settings: Settings, *, email: str, username: str, password: str | None) -> str:
    """Make an administrator, with the database connected; the password."""
    from adapters import events
    from resolvers import sessions, users

    async with events.connected(settings), sessions.opened(settings):
        return await users.create_admin(email=email, username=username, password=password)


async def _is_ready(settings: Settings, scanner_port: int | None) -> bool:
    if scanner_port is not None and await supervisor.http_status("127.0.0.1", scanner_port, "/healthz") != 200:
        return False
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 — compared, not bound
    return await supervisor.http_status(host, settings.port, "/readyz") == 200


def _offer_scanner() -> int | None:
    """Where the risk scanner will listen as a service, unless the environment names one: as production has it."""
    if os.environ.get("AI_SERVICE_URL"):
        return None
    port = children.free_port()
    os.environ["AI_SERVICE_URL"] = f"http://127.0.0.1:{port}"
    return port


def offer_practice_site() -> str | None:
    """Let crawls and clones reach the practice site, if its port is free for it: nothing else may become reachable so.

    The repository there has an http address, which git is allowed for it unless the environment says what is.
    """
    if not children.port_is_free("127.0.0.1", PRACTICE_PORT):
        _say(f"Port {PRACTICE_PORT} is in use; going without the practice site.")
        return None
    host = f"127.0.0.1:{PRACTICE_PORT}"
    _allow("CRAWL_ALLOWED_HOSTS", host)
    if shutil.which("git"):
        protocols = os.environ.setdefault("GIT_PROTOCOLS", "https,http")
        if "http" in [protocol.strip() for protocol in protocols.split(",")]:
            _allow("BUILD_ALLOWED_HOSTS", host)
    return f"http://{host}"


def _allow(variable: str, host: str) -> None:
    allowed = os.environ.get(variable)
    os.environ[variable] = f"{allowed},{host}" if allowed else host


async def _together(starts: Sequence[Callable[[], Awaitable[None]]]) -> None:
    async def one(start: Callable[[], Awaitable[None]]) -> None:
        await start()

    try:
        async with asyncio.TaskGroup() as tasks:
            for start in starts:
                tasks.create_task(one(start))
    except BaseExceptionGroup as group:
        raise first_error(group) from None


def _say(text: str) -> None:
    print(text, flush=True)


# -- what production starts


def serve_api(_options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    with garbage.loading():
        import uvloop

        from app import serve

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(load()))
    return 0


def run_worker(_options: argparse.Namespace) -> int:
    """Work until SIGTERM or SIGINT."""
    with garbage.loading():
        from tasks import worker

    asyncio.run(worker.run(load()))
    return 0


def serve_egress_proxy(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; needs no database, so whoever runs it need not trust it with one."""
    from adapters.sandbox import egress_server
    from adapters.structured_logs import set_up_logging

    settings = load(**{name: value for name, value in maintenance.PROVIDED.items() if name.upper() not in os.environ})
    guard, listening = egress_server.prepare(settings, *options.listen)
    set_up_logging(settings)
    asyncio.run(egress_server.serve(guard, listening, stop_signals=STOP_SIGNALS))
    return 0


def serve_ai_service(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; needs no database."""
    from schema import ai_service

    settings = load(**{name: value for name, value in maintenance.PROVIDED.items() if name.upper() not in os.environ})
    return ai_service.run(settings, *options.listen)


# -- maintenance


def migrate_database(options: argparse.Namespace) -> int:
    """Apply what is missing and install the shipped tools, or check that the migrations describe the models."""
    from models import database

    if options.check:
        missing = asyncio.run(_unwritten_migrations())
        for change in missing:
            print(f"No migration yet: {change}", file=sys.stderr)
        return 1 if missing else 0
    settings = load()
    with database.database_errors(), garbage.seldom():
        applied = asyncio.run(database.migrate(settings.database_url.get_secret_value()))
    print("\n".join(applied) if applied else "The schema is up to date.")
    for slug in asyncio.run(_install_tools(settings)):
        print(f"Installed the tool {slug}.")
    return 0


async def _install_tools(settings: Settings) -> list[str]:
    from models import database
    from resolvers import tools

    async with database.connected(settings):
        return await tools.install_catalogue()


async def _unwritten_migrations() -> list[str]:
    """What the models say and no migration does; needs no database."""
    from tortoise.context import TortoiseContext
    from tortoise.migrations.autodetector import MigrationAutodetector

    from models import database

    config = database.tortoise_config("postgres://nobody@127.0.0.1/none")
    async with TortoiseContext() as context:
        await context.init(config=config)
        if context.apps is None:
            raise SettingsError("models/database.py names no models")
        writers = await MigrationAutodetector(context.apps, config["apps"]).changes()
    return [f"{writer.app_label}: {operation}" for writer in writers for operation in writer.operations]


def create_admin(options: argparse.Namespace) -> int:
    """Make an administrator; a random password unless one is given on stdin."""
    from models import database

    given = sys.stdin.readline().rstrip("\n") if options.password_stdin else None
    if given == "":
        print("The password on stdin is empty.", file=sys.stderr)
        return 2

    async def create() -> str:
        settings = load()
        async with database.connected(settings):
            return await _create_admin(settings, email=options.email, username=options.username, password=given)

    password = asyncio.run(create())
    print(f"Administrator {options.email} is made." + ("" if given else f" Password: {password}"))
    return 0


def rotate_keys(_options: argparse.Namespace) -> int:
    """Seal every secret anew with the first key; 1 unless all is under that key afterwards."""
    from resolvers import key_rotation

    report = asyncio.run(key_rotation.rotate_all(load()))
    print("\n".join(report.lines))
    print("".join(f"{problem}\n" for problem in report.problems), end="", file=sys.stderr)
    return 1 if report.problems else 0


def print_schema(options: argparse.Namespace) -> int:
    """Print the SDL, or compare it with the file in the repository."""
    with garbage.loading():
        from schema import sdl

    text = sdl().rstrip("\n") + "\n"
    if not options.check:
        print(text, end="")
        return 0
    path = CHECKOUT / "schema.graphql"
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return 0
    print("schema.graphql is not what the code says; run: make schema", file=sys.stderr)
    return 1


def print_settings(_options: argparse.Namespace) -> int:
    """Print the settings as `.env.example` has them: never values, only defaults."""
    print(environment_example(), end="")
    return 0


def environment_example() -> str:
    """Every setting: its description as a comment, then its default; one without a default must be filled in."""
    lines = [
        "# Every setting of Switchyard; written by `make schema` from settings.py. `make run` needs none of them.",
        "# Copy it to .env for compose.yml, fill in what has no value, and uncomment what you change.",
        "",
        "# -- compose.yml only: passwords of the services it starts; letters and digits",
        "POSTGRES_PASSWORD=",
        "REDIS_PASSWORD=",
    ]
    for line in inspect.getsource(settings_module.Settings).splitlines():
        if section := re.match(r"    # -- (.+)", line):
            lines += ["", f"# -- {section[1]}"]
        elif (field := re.match(r"    (\w+): ", line)) and field[1] in Settings.model_fields:
            lines += _setting_lines(field[1])
    return "\n".join(lines) + "\n"


def _setting_lines(name: str) -> list[str]:
    field = Settings.model_fields[name]
    comment = f"# {field.description}"
    if field.is_required():
        return [comment, f"{name.upper()}="]
    default = field.default
    text = "" if default is None else ",".join(default) if isinstance(default, tuple) else str(default)
    if isinstance(default, bool):
        text = text.lower()
    return [comment, f"# {name.upper()}={text}"]


if __name__ == "__main__":
    exit_code = main()
    garbage.ending()
    sys.exit(exit_code)
