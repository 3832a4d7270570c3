"""Every setting of Switchyard: typed, read once from the environment, frozen.

A bad value stops the start with a message that names the variable. Entry points call `load()` once and
hand the object down; nothing else reads the environment. `.env.example` lists the same names, which a
test compares. The module imports nothing of the project.
"""

from __future__ import annotations

import base64
import binascii
import re
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Environment(StrEnum):
    """Development opens what helps on one's own machine; production refuses weak settings."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class StorageBackend(StrEnum):
    """Where files live."""

    LOCAL = "local"
    S3 = "s3"


class BuildRunnerKind(StrEnum):
    """What isolates builds."""

    SANDBOX = "sandbox"
    DOCKER = "docker"
    KUBERNETES = "kubernetes"


class SmtpSecurity(StrEnum):
    """How the connection to the mail server is protected."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


CommaSeparated = Annotated[tuple[str, ...], NoDecode]


class SettingsError(Exception):
    """A setting is missing or wrong; the message says which and why, for the person at the terminal."""


class Settings(BaseSettings):
    """The settings, by section; each field's description is what `.env.example` says of it."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    # -- the service
    environment: Environment = Field(Environment.DEVELOPMENT, description="development or production")
    base_url: str = Field("http://localhost:8000", description="Public address of the API, no slash at the end")
    host: str = Field("127.0.0.1", description="Address the API listens on")
    port: int = Field(8000, ge=0, le=65535, description="Port the API listens on")
    data_dir: Path = Field(Path(".switchyard"), description="Folder of local data: files, mail, embedded databases")
    log_level: str = Field(
        "INFO", pattern="(?i)^(debug|info|warning|error)$", description="DEBUG, INFO, WARNING or ERROR"
    )
    log_format: str = Field("json", pattern="^(json|console)$", description="json or console")
    allowed_origins: CommaSeparated = Field(
        (), description="Origins of browser apps that may call the API, comma separated"
    )
    trusted_proxies: CommaSeparated = Field(
        (), description="Addresses or networks of reverse proxies whose X-Forwarded-For is believed"
    )
    access_log: bool = Field(True, description="Write a line for each request and each WebSocket that is over")
    metrics_token: SecretStr | None = Field(
        None, description="Bearer token for /metrics; without one only development's own machine may read it"
    )
    metrics_port: int = Field(0, ge=0, le=65_535, description="Port of a worker's /metrics and /healthz; 0 for none")
    metrics_host: str = Field(
        "127.0.0.1", description="Address of that port; one that others reach needs METRICS_TOKEN"
    )
    introspection: bool = Field(True, description="Answer GraphQL introspection")
    drain_seconds: float = Field(
        0.0,
        ge=0,
        le=60,
        description="How long the API still answers after SIGTERM, not ready, so that balancers look away; 5 suits",
    )

    # -- databases
    database_url: SecretStr = Field(description="PostgreSQL 15 or newer: postgres://user:password@host:port/name")
    database_pool_size: int = Field(10, ge=2, le=100, description="Connections per process")
    redis_url: SecretStr = Field(description="Redis or Valkey: redis://host:port/0")
    redis_namespace: str = Field("switchyard", min_length=1, description="Prefix of every key and channel")

    # -- secrets and sessions
    secret_keys: SecretStr = Field(
        description="Signing keys, newest first: kid:base64-of-32-bytes, comma separated. The first signs, all verify"
    )
    access_token_seconds: int = Field(900, ge=30, le=86_400, description="Life of an access token")
    session_idle_days: int = Field(14, ge=1, le=365, description="A session unused for so long ends")
    session_absolute_days: int = Field(90, ge=1, le=365, description="A session ends after so long in any case")
    argon2_memory_kib: int = Field(47_104, ge=8, description="Memory of one password hash")
    argon2_concurrency: int = Field(2, ge=1, le=64, description="Password hashes computed at once")
    password_min_length: int = Field(8, ge=8, le=128, description="Shortest password accepted, in characters")

    app_url: str | None = Field(
        None, description="Address of the app that links in mail lead to; without one they lead to BASE_URL"
    )
    email_confirmation: bool | None = Field(
        None, description="Whether an account works only once its e-mail address is confirmed; in production yes"
    )
    max_access_tokens_per_user: int = Field(100, ge=1, description="Access tokens that one user may have")

    # -- rate limits
    rate_limits: bool = Field(True, description="Whether calls are counted and refused when there are too many")
    rate_limit_auth_per_minute: int = Field(
        5, ge=1, description="Failed sign-ins, registrations and resets in a minute, of an address and of an account"
    )
    rate_limit_second_factor_per_quarter_hour: int = Field(
        5, ge=1, description="Wrong codes of a second factor in fifteen minutes, of an account"
    )
    rate_limit_deployments_per_hour: int = Field(10, ge=1, description="New deployments of a user in an hour")
    rate_limit_cost_per_minute: int = Field(
        100, ge=10, description="Calls of a user in a minute; one that asks for many nodes counts for several"
    )
    expected_api_replicas: int = Field(1, ge=1, description="API processes that share the limits while Redis is away")

    # -- files
    storage_backend: StorageBackend = Field(StorageBackend.LOCAL, description="local or s3")
    s3_endpoint_url: str | None = Field(None, description="Endpoint of an S3-compatible service; empty for AWS")
    s3_public_url: str | None = Field(None, description="Endpoint that browsers reach, if not the same")
    s3_region: str = Field("us-east-1", description="Region")
    s3_bucket: str = Field("switchyard", description="Bucket")
    s3_access_key_id: SecretStr | None = Field(None, description="Access key")
    s3_secret_access_key: SecretStr | None = Field(None, description="Secret key")
    download_url_seconds: int = Field(3_600, ge=60, le=604_800, description="Life of a download URL")

    # -- workers
    worker_crawl_slots: int = Field(4, ge=0, le=64, description="Crawls that one worker runs at once")
    lease_seconds: float = Field(20.0, ge=2, le=120, description="A worker silent for so long has lost its work")
    heartbeat_seconds: float = Field(5.0, ge=0.2, le=30, description="How often a worker renews its leases")
    sweep_seconds: float = Field(2.0, ge=0.2, le=30, description="How often workers look for lost work")
    max_attempts: int = Field(3, ge=1, le=10, description="Starts of an execution whose workers are lost")
    max_queued_per_user: int = Field(1_000, ge=1, description="Executions one user may have waiting")
    max_running_per_user: int = Field(4, ge=1, description="Crawls that run at once for one user")
    log_head_bytes: int = Field(16 * 2**20, ge=65_536, description="Log kept from the start of an execution")
    log_tail_bytes: int = Field(2**20, ge=8_192, description="Log kept from the end once the head is full")
    log_compact_after_seconds: float = Field(60.0, ge=0, description="A finished log moves to storage after so long")

    # -- how long things are kept
    retention_log_days: int = Field(180, ge=0, description="Logs of finished executions; 0 keeps them for ever")
    retention_item_days: int = Field(0, ge=0, description="Items, requests and files of finished runs; 0 for ever")
    retention_audit_days: int = Field(730, ge=0, description="Audit events, thirty days at least; 0 for ever")
    retention_upload_days: int = Field(0, ge=0, description="Media that nothing refers to; 0 for ever")
    retention_notification_days: int = Field(90, ge=0, description="Notifications; 0 for ever")
    retention_webhook_days: int = Field(30, ge=0, description="Deliveries of GitHub's webhooks; 0 for ever")
    retention_session_days: int = Field(30, ge=0, description="Sessions and links in letters that ended; 0 for ever")
    retention_idempotency_days: int = Field(30, ge=0, description="What idempotency keys stand for; 0 for ever")

    # -- crawling
    crawl_user_agent: str = Field(
        "Switchyard/0.1 (+https://github.com/switchyard; self-hosted crawler)", description="User agent of crawls"
    )
    crawl_allowed_hosts: CommaSeparated = Field(
        (), description="host:port pairs that crawls may reach although their address is not public"
    )
    crawl_start_delay_seconds: float = Field(
        0.5, ge=0, le=60, description="Pause between pages of a host until its answer times are known"
    )
    crawl_target_concurrency: float = Field(2.0, gt=0, le=16, description="Pages fetched from one host at once")
    crawl_timeout_seconds: int = Field(3_600, ge=1, le=86_400, description="Longest run, unless the run says less")
    max_jobs_per_user: int = Field(1_000, ge=1, description="Jobs that one user may have")
    crawl_pages_per_day: int = Field(
        100_000, ge=1, description="Pages that the crawls of one user may fetch on one day (UTC)"
    )
    preview_slots: int = Field(2, ge=0, le=32, description="Previews that one API process runs at once; 0: none")
    max_schedules_per_user: int = Field(100, ge=1, description="Jobs of one user that may have a schedule")
    schedule_min_seconds: int = Field(
        60, ge=60, le=86_400, description="Shortest time between two runs of a schedule, by the clock"
    )
    crawl_memory_megabytes: int = Field(1_024, ge=128, description="Memory of one crawl process")

    # -- exports
    worker_export_slots: int = Field(2, ge=0, le=64, description="Exports that one worker makes at once")
    max_exports_per_user: int = Field(2, ge=1, description="Exports of one user that are made at once")
    export_days: int = Field(7, ge=1, le=365, description="How long the file of an export is kept")
    export_timeout_seconds: int = Field(3_600, ge=1, le=86_400, description="Longest making of an export")
    export_max_megabytes: int = Field(4_096, ge=1, description="Largest file of an export, and of its working copy")
    export_memory_megabytes: int = Field(1_024, ge=512, description="Memory of the process that writes an export")

    # -- projects and builds
    build_runner: BuildRunnerKind = Field(
        BuildRunnerKind.SANDBOX, description="sandbox (bubblewrap on the worker's machine), docker or kubernetes"
    )
    worker_build_slots: int = Field(2, ge=0, le=64, description="Builds that one worker runs at once")
    max_builds_per_user: int = Field(2, ge=1, description="Builds of one user at once; the rest wait in order")
    max_projects_per_user: int = Field(100, ge=1, description="Projects that one user may have")
    build_timeout_seconds: int = Field(600, ge=5, le=86_400, description="Longest build, from its start to its end")
    build_clone_seconds: int = Field(120, ge=1, description="Longest clone")
    build_install_seconds: int = Field(300, ge=1, description="Longest installation of dependencies")
    build_command_seconds: int = Field(480, ge=1, description="Longest run of the build command")
    build_upload_seconds: int = Field(180, ge=1, description="Longest upload of the output")
    build_memory_megabytes: int = Field(2_048, ge=64, description="Memory of one build, all of its processes together")
    build_processes: int = Field(512, ge=16, description="Processes and threads of one build")
    build_disk_megabytes: int = Field(4_096, ge=16, description="Disk that the checkout of one build may take")
    build_output_megabytes: int = Field(500, ge=1, description="Largest output of a build")
    build_output_files: int = Field(20_000, ge=1, description="Files in the output of a build")
    build_log_megabytes: int = Field(64, ge=1, description="Text that a build may print before it is stopped")
    build_cache_megabytes: int = Field(
        1_024, ge=0, description="Dependency cache of one project on one worker; 0 keeps none"
    )
    build_uid: int = Field(
        61_000, ge=1_000, le=2**31, description="First of the user ids that builds get when the worker runs as root"
    )
    build_tool_paths: CommaSeparated = Field(
        (), description="Folders outside /usr that builds may read, such as a Node.js in /opt, comma separated"
    )
    build_allowed_hosts: CommaSeparated = Field(
        (), description="host:port pairs that builds and clones may reach although their address is not public"
    )
    build_egress_megabytes: int = Field(4_096, ge=1, description="Data that one build may send and receive")
    build_image: str = Field("node:22-bookworm", description="Image of builds, for docker and kubernetes")
    build_proxy_url: str | None = Field(
        None, description="Where containers reach `switchyard egress-proxy`; without it they have no network"
    )
    docker_host: str = Field("unix:///var/run/docker.sock", description="Docker Engine for builds")
    docker_network: str | None = Field(None, description="Internal network that builds share with the egress proxy")
    kubernetes_url: str = Field("https://kubernetes.default.svc", description="API server for builds")
    kubernetes_namespace: str = Field("switchyard-builds", description="Namespace of build jobs")
    kubernetes_token_file: Path = Field(
        Path("/var/run/secrets/kubernetes.io/serviceaccount/token"), description="File with the bearer token"
    )
    kubernetes_ca_file: Path | None = Field(
        Path("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"), description="File with the cluster's certificate"
    )
    kubernetes_runtime_class: str | None = Field(None, description="Runtime class of build pods, such as gvisor")
    git_protocols: CommaSeparated = Field(("https",), description="Protocols that repositories may use: https, http")
    git_max_megabytes: int = Field(500, ge=1, description="Largest checkout of a repository")

    # -- scans
    ai_service_url: str | None = Field(
        None, description="Risk scans: address of the AI service; without one the embedded scanner answers"
    )
    ai_timeout_seconds: float = Field(60.0, gt=0, le=600, description="How long a scan waits for the AI service")
    ai_breaker_failures: int = Field(5, ge=1, description="Failures in a row after which the AI service is left alone")
    ai_breaker_seconds: float = Field(30.0, gt=0, le=3_600, description="For so long, then one scan tries it again")
    worker_scan_slots: int = Field(4, ge=0, le=64, description="Scans that one worker runs at once")
    max_scans_per_user: int = Field(4, ge=1, description="Scans of one user at once; the rest wait in order")
    scan_max_megabytes: int = Field(10, ge=1, le=100, description="Largest file of a scan")
    rate_limit_scans_per_hour: int = Field(100, ge=1, description="New scans of a user in an hour")

    # -- media, documents, products
    media_max_megabytes: int = Field(100, ge=1, le=5_000, description="Largest upload")
    media_quota_megabytes: int = Field(5_120, ge=1, description="All uploads of one user")
    media_upload_seconds: int = Field(3_600, ge=60, le=86_400, description="How long an upload may take")
    media_max_pixels: int = Field(50_000_000, ge=1_000_000, description="Largest image, in pixels")
    media_decoders: int = Field(2, ge=1, le=32, description="Uploads that one API process looks into at once")
    media_memory_megabytes: int = Field(1_024, ge=256, description="Memory of a process that decodes a file")
    worker_ocr_slots: int = Field(2, ge=0, le=64, description="Documents that one worker reads at once")
    max_ocr_per_user: int = Field(2, ge=1, description="Documents of one user that are read at once")
    ocr_max_pages: int = Field(500, ge=1, le=10_000, description="Pages of a document")
    ocr_page_seconds: float = Field(60.0, gt=0, le=600, description="Longest reading of one page")
    ocr_dpi: int = Field(200, ge=72, le=400, description="Resolution that pages without a text layer are read at")
    ocr_languages: CommaSeparated = Field(("spa", "eng"), description="Languages of documents that name none")
    tessdata_paths: CommaSeparated = Field(
        (), description="Folders with *.traineddata besides the usual ones, comma separated"
    )
    rate_limit_documents_per_hour: int = Field(300, ge=1, description="Documents that a user may have read in an hour")

    # -- sites
    sites_domain: str = Field(
        "localhost",
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?$",
        description="Sites are <project>.<this>; in production a domain of its own, apart from the API's",
    )
    site_cache_megabytes: int = Field(64, ge=0, description="Memory per process for files of sites")

    # -- GitHub
    github_url: str = Field("https://github.com", description="GitHub, or a GitHub Enterprise Server")
    github_api_url: str = Field("https://api.github.com", description="Its API; https://host/api/v3 for Enterprise")
    github_client_id: str | None = Field(None, description="OAuth app: client id")
    github_client_secret: SecretStr | None = Field(None, description="OAuth app: client secret")
    github_webhook_secret: SecretStr | None = Field(
        None, description="Secret of webhooks; without it /webhooks/github refuses everything"
    )

    # -- webhooks
    webhook_allowed_hosts: CommaSeparated = Field(
        (), description="host:port pairs that webhooks may be sent to although their address is not public"
    )
    max_webhook_endpoints_per_user: int = Field(20, ge=1, description="Webhook endpoints that one user may have")
    rate_limit_webhook_tests_per_hour: int = Field(
        60, ge=1, description="Test messages and repeated deliveries of webhooks that a user may ask for in an hour"
    )

    # -- Google
    google_issuer: str = Field(
        "https://accounts.google.com", description="OpenID provider of the sign-in with Google; tests have their own"
    )
    google_client_id: str | None = Field(None, description="OAuth client: id; without one nobody signs in with Google")
    google_client_secret: SecretStr | None = Field(None, description="OAuth client: secret")

    # -- mail
    smtp_host: str | None = Field(None, description="Mail server; without one mail goes to DATA_DIR/mail")
    smtp_port: int = Field(587, ge=1, le=65_535, description="Port of the mail server")
    smtp_security: SmtpSecurity = Field(SmtpSecurity.STARTTLS, description="starttls, tls or none")
    smtp_username: str | None = Field(None, description="User name at the mail server")
    smtp_password: SecretStr | None = Field(None, description="Password at the mail server")
    mail_from: str = Field("Switchyard <switchyard@localhost>", description="Sender of mail")

    # -- status page
    status_probes: bool = Field(True, description="Whether workers probe the service every 30 s for the status page")
    status_api_url: str | None = Field(
        None, description="Where workers reach the API for that; without one at BASE_URL"
    )

    # -- limits of the GraphQL surface
    max_body_bytes: int = Field(1_048_576, ge=1_024, description="Largest HTTP body of an operation")
    body_timeout_seconds: float = Field(30.0, gt=0, le=600, description="How long a request may take to arrive")
    max_message_bytes: int = Field(65_536, ge=1_024, description="Largest WebSocket message from a client")
    max_tokens: int = Field(2_000, ge=100, description="Tokens in a document")
    max_depth: int = Field(14, ge=3, description="Nesting of a document")
    max_aliases: int = Field(30, ge=0, description="Aliases in a document")
    max_cost: int = Field(5_000, ge=100, description="Nodes that an operation may ask for")
    max_subscriptions_per_socket: int = Field(50, ge=1, description="Subscriptions on one WebSocket")
    max_sockets_per_user: int = Field(20, ge=1, description="WebSockets of one user on one process")

    @field_validator(
        "allowed_origins",
        "trusted_proxies",
        "crawl_allowed_hosts",
        "build_allowed_hosts",
        "webhook_allowed_hosts",
        "build_tool_paths",
        "git_protocols",
        "ocr_languages",
        "tessdata_paths",
        mode="before",
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _origins_are_exact(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            # Browsers send origins in lower case and without a path; anything else here would never match.
            if not re.fullmatch(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?", origin):
                raise ValueError(f"{origin!r} is no origin like https://app.example.com")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in value:
            ip_network(proxy, strict=False)
        return value

    @field_validator("git_protocols")
    @classmethod
    def _protocols_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not set(value) <= {"https", "http"}:
            raise ValueError("must be https, or https,http")
        return value

    @field_validator("build_tool_paths")
    @classmethod
    def _tool_paths_are_absolute(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for path in value:
            if not Path(path).is_absolute() or ".." in Path(path).parts or path == "/":
                raise ValueError(f"{path!r} is no absolute path of a folder")
        return value

    @field_validator("base_url", "github_url", "github_api_url", "google_issuer", "status_api_url")
    @classmethod
    def _no_trailing_slash(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/")

    @field_validator("secret_keys")
    @classmethod
    def _keys_decode(cls, value: SecretStr) -> SecretStr:
        parse_keyring(value)
        return value

    @model_validator(mode="after")
    def _production_is_strict(self) -> Settings:
        if self.heartbeat_seconds * 3 > self.lease_seconds:
            raise ValueError("HEARTBEAT_SECONDS must be at most a third of LEASE_SECONDS")
        if (
            self.metrics_port
            and self.metrics_token is None
            and self.metrics_host not in ("127.0.0.1", "::1", "localhost")
        ):
            raise ValueError("METRICS_TOKEN is needed when METRICS_HOST is not this machine alone")
        if self.environment is Environment.PRODUCTION and not self.base_url.startswith("https://"):
            raise ValueError("BASE_URL must be https in production")
        if self.storage_backend is StorageBackend.S3 and not (self.s3_access_key_id and self.s3_secret_access_key):
            raise ValueError("S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY are needed with STORAGE_BACKEND=s3")
        if self.is_production and self.sites_domain.partition(":")[0] == (urlsplit(self.base_url).hostname or ""):
            raise ValueError("SITES_DOMAIN must not be the host of BASE_URL: sites are other people's code")
        return self

    def site_url(self, label: str) -> str:
        """Where a site is: `label` under the sites' domain, with the scheme, and if need be the port, of the API."""
        base = urlsplit(self.base_url)
        port = f":{base.port}" if base.port and ":" not in self.sites_domain else ""
        return f"{base.scheme}://{label}.{self.sites_domain}{port}"

    @property
    def is_production(self) -> bool:
        """Whether strict rules hold."""
        return self.environment is Environment.PRODUCTION

    @property
    def lease_margin_seconds(self) -> float:
        """How long after a renewal was sent the worker still believes in its lease: well before others do not."""
        return self.lease_seconds * 0.7

    @property
    def keyring(self) -> dict[str, bytes]:
        """Signing keys by id, newest first."""
        return parse_keyring(self.secret_keys)


def parse_keyring(value: SecretStr) -> dict[str, bytes]:
    """Read `kid:base64,kid:base64`; each key has at least 32 bytes (RFC 7518 §3.2 for HS256).

    Raises ValueError that names the faulty entry without showing it.
    """
    keyring: dict[str, bytes] = {}
    for number, entry in enumerate(value.get_secret_value().split(","), start=1):
        kid, separator, encoded = entry.strip().partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not separator or not kid or len(key) < 32:
            raise ValueError(f"entry {number} is not kid:base64 of at least 32 bytes")
        keyring[kid] = key
    return keyring


def load(**overrides: Any) -> Settings:
    """Read the environment once; raises SettingsError with one line per fault."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(str(part) for part in fault['loc']).upper() or 'settings'}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise SettingsError("These settings are missing or wrong:\n" + "\n".join(lines)) from None
