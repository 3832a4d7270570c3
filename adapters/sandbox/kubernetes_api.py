"""The few calls of the Kubernetes API that builds need: objects, logs that are followed, and commands in containers.

Invariant: every call ends by its deadline or by standing still too long, no answer is held beyond `ANSWER_BYTES`, and
whatever goes wrong is a `ClusterError`. The token is read anew for every request, because it rotates. Proxies and other
variables of the environment are not looked at. The module knows no builds.

Commands go over WebSocket with the subprotocol v4.channel.k8s.io, which every supported version speaks: the first byte
of a message is its channel, and the outcome comes as a Status on a channel of its own. It has no way to close standard
input, so a command must know how much to read.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from settings import Settings

CONNECT_SECONDS: Final = 10.0
CALL_SECONDS: Final = 30.0
STALL_SECONDS: Final = 60.0
ANSWER_BYTES: Final = 4 * 2**20
READ_BYTES: Final = 64 * 1024
FRAME_BYTES: Final = 64 * 1024
STDERR_BYTES: Final = 1_000
STDIN, STDOUT, STDERR, OUTCOME = 0, 1, 2, 3
SUBPROTOCOL: Final = "v4.channel.k8s.io"

Json = dict[str, Any]
"""What the API server sends: parsed JSON, of which callers take what they check."""


class ClusterError(Exception):
    """The API server refused, failed, or did not answer; `status` is None when there was no answer."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class CommandFailed(Exception):
    """A command in a container ended with another exit code than 0."""

    def __init__(self, exit_code: int | None, said: str) -> None:
        super().__init__(f"exit code {exit_code}: {said}")
        self.exit_code = exit_code


@asynccontextmanager
async def open_cluster(settings: Settings) -> AsyncIterator[Cluster]:
    """A client for one build. Raises ClusterError when the certificate cannot be read."""
    try:
        context = await asyncio.to_thread(_tls, settings)
    except (OSError, ssl.SSLError) as error:
        raise ClusterError(f"KUBERNETES_CA_FILE cannot be read: {error}") from None
    timeout = aiohttp.ClientTimeout(total=CALL_SECONDS, sock_connect=CONNECT_SECONDS)
    connector = aiohttp.TCPConnector(limit=0, ssl=context)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, trust_env=False, read_bufsize=READ_BYTES
    ) as session:
        yield Cluster(settings, session)


class Cluster:
    """The API server, seen from the namespace of builds. Every method raises ClusterError; made by `open_cluster`."""

    def __init__(self, settings: Settings, session: aiohttp.ClientSession) -> None:
        self._url = settings.kubernetes_url.rstrip("/")
        self._token_file = settings.kubernetes_token_file
        self._session = session
        self.jobs = f"/apis/batch/v1/namespaces/{settings.kubernetes_namespace}/jobs"
        self.pods = f"/api/v1/namespaces/{settings.kubernetes_namespace}/pods"
        self.secrets = f"/api/v1/namespaces/{settings.kubernetes_namespace}/secrets"

    async def get(self, path: str, **query: str) -> Json:
        """GET an object."""
        return await self._call("GET", path, query)

    async def create(self, path: str, body: Json, **query: str) -> Json:
        """POST an object; the answer is the object as it was stored."""
        return await self._call("POST", path, query, json=body)

    async def patch(self, path: str, body: Json) -> Json:
        """Change fields of an object (RFC 7396)."""
        headers = {"Content-Type": "application/merge-patch+json"}
        return await self._call("PATCH", path, {}, data=json.dumps(body), headers=headers)

    async def delete(self, path: str, *, uid: str) -> None:
        """Delete an object, but no later one of the same name; what it owns is deleted after it."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        await self._call("DELETE", path, {}, json=options)

    @asynccontextmanager
    async def log(self, pod: str, container: str, *, since: str | None) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """The log with a timestamp before each line, followed until the container ends; no deadline but the caller's.

        `since` is a whole second (RFC 3339): lines of that second come again.
        """
        query = {"container": container, "follow": "true", "timestamps": "true"}
        if since is not None:
            query["sinceTime"] = since
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        request = self._request("GET", f"{self.pods}/{pod}/log", query, timeout=timeout)
        async with request as answer, aclosing(_stream(answer)) as chunks:
            yield chunks

    async def send(self, pod: str, container: str, command: Sequence[str], data: AsyncIterable[bytes]) -> None:
        """Run a command with this standard input, and wait for its end. Raises CommandFailed too."""
        async with self._command(pod, container, command, with_stdin=True) as socket:
            try:
                async for chunk in data:
                    for offset in range(0, len(chunk), FRAME_BYTES):
                        async with asyncio.timeout(STALL_SECONDS):
                            await socket.send_bytes(bytes([STDIN]) + chunk[offset : offset + FRAME_BYTES])
            except TimeoutError:
                raise ClusterError(f"{pod} takes no more input") from None
            except (aiohttp.ClientError, ConnectionError) as error:
                raise ClusterError(f"the connection to {pod} was cut: {error}") from None
            async with aclosing(_output(socket)) as output:
                async for _ in output:
                    pass

    @asynccontextmanager
    async def receive(
        self, pod: str, container: str, command: Sequence[str]
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """What a command writes to standard output; the iteration raises CommandFailed at its end."""
        async with (
            self._command(pod, container, command, with_stdin=False) as socket,
            aclosing(_output(socket)) as output,
        ):
            yield output

    @asynccontextmanager
    async def _command(
        self, pod: str, container: str, command: Sequence[str], *, with_stdin: bool
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        query = [("container", container), ("stdin", str(with_stdin).lower()), ("stdout", "true"), ("stderr", "true")]
        query += [("tty", "false"), *(("command", word) for word in command)]
        path = f"{self.pods}/{pod}/exec"
        timeout = aiohttp.ClientWSTimeout(ws_receive=STALL_SECONDS, ws_close=CONNECT_SECONDS)
        with _translated(f"a command in {pod}"):
            async with asyncio.timeout(CALL_SECONDS):
                socket = await self._session.ws_connect(
                    URL(f"{self._url}{path}?{urlencode(query, quote_via=quote)}", encoded=True),
                    protocols=(SUBPROTOCOL,),
                    headers=await self._headers(),
                    timeout=timeout,
                    max_msg_size=ANSWER_BYTES,
                )
        async with socket:
            yield socket

    async def _call(self, method: str, path: str, query: Mapping[str, str], **options: Any) -> Json:
        async with self._request(method, path, query, **options) as answer:
            return await _parse(answer)

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, query: Mapping[str, str], **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = URL(self._url + path + (f"?{urlencode(query, quote_via=quote)}" if query else ""), encoded=True)
        headers = {**await self._headers(), **options.pop("headers", {})}
        with _translated(f"{method} {path}"):
            answer = await self._session.request(method, url, headers=headers, allow_redirects=False, **options)
        async with answer:
            if answer.status >= 300:
                raise ClusterError(await _reason(answer), status=answer.status)
            yield answer

    async def _headers(self) -> dict[str, str]:
        try:
            token = (await asyncio.to_thread(self._token_file.read_text)).strip()
        except (OSError, UnicodeError) as error:
            raise ClusterError(f"KUBERNETES_TOKEN_FILE cannot be read: {error}") from None
        return {"Authorization": f"Bearer {token}", "Accept": "application/json"}


def _tls(settings: Settings) -> ssl.SSLContext | bool:
    if not settings.kubernetes_url.startswith("https://") or settings.kubernetes_ca_file is None:
        return True
    return ssl.create_default_context(cafile=str(settings.kubernetes_ca_file))


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise ClusterError(f"the Kubernetes API server does not answer ({what})") from None
    except aiohttp.WSServerHandshakeError as error:
        raise ClusterError(
            f"the Kubernetes API server refused {what} with {error.status}", status=error.status
        ) from None
    except (aiohttp.ClientError, ConnectionError) as error:
        raise ClusterError(f"the Kubernetes API server cannot be reached ({what}): {error}") from None


async def _stream(answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    while True:
        with _translated("reading"):
            chunk = await answer.content.readany()
        if not chunk:
            return
        yield chunk


async def _parse(answer: aiohttp.ClientResponse) -> Json:
    held = bytearray()
    async for chunk in _stream(answer):
        held += chunk
        if len(held) > ANSWER_BYTES:
            raise ClusterError(f"an answer of the Kubernetes API server is longer than {ANSWER_BYTES} bytes")
    try:
        parsed = json.loads(held)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise ClusterError("an answer of the Kubernetes API server is no JSON object")
    return parsed


async def _reason(answer: aiohttp.ClientResponse) -> str:
    try:
        message = str((await _parse(answer)).get("message", ""))
    except ClusterError:
        message = ""
    return f"the Kubernetes API server refused with {answer.status}: {message[:500] or answer.reason}"


async def _output(socket: aiohttp.ClientWebSocketResponse) -> AsyncGenerator[bytes, None]:
    """Standard output until the command's Status has come, which follows all of it."""
    said = bytearray()
    while True:
        with _translated("output of a command"):
            message = await socket.receive()
        if message.type is not aiohttp.WSMsgType.BINARY:
            raise ClusterError("the output of a command was cut")
        channel, data = message.data[:1], message.data[1:]
        if channel == bytes([STDOUT]):
            if data:
                yield data
        elif channel == bytes([STDERR]):
            said += data[: STDERR_BYTES - len(said)]
        elif channel == bytes([OUTCOME]):
            _check_outcome(data, said.decode(errors="replace").strip())
            return


def _check_outcome(data: bytes, said: str) -> None:
    try:
        outcome = json.loads(data)
        if outcome["status"] == "Success":
            return
        causes = (outcome.get("details") or {}).get("causes") or ()
        code = next((int(cause["message"]) for cause in causes if cause.get("reason") == "ExitCode"), None)
    except (ValueError, KeyError, TypeError):
        raise ClusterError("the outcome of a command is malformed") from None
    if code is None:
        raise ClusterError(f"a command could not be run: {str(outcome.get('message', ''))[:500]}")
    raise CommandFailed(code, said)
