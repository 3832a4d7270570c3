"""Settings: a bad one stops the start by name without showing a secret, and `.env.example` says what the code does."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

import cli
from settings import Environment, Settings, SettingsError, load

CHECKOUT = Path(__file__).resolve().parents[2]
KEY = "k1:" + base64.b64encode(b"x" * 32).decode("ascii")
REQUIRED = {"DATABASE_URL": "postgres://user:pw@host/db", "REDIS_URL": "redis://host", "SECRET_KEYS": KEY}
FOR_COMPOSE = {"POSTGRES_PASSWORD", "REDIS_PASSWORD"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is required, whatever the person or machine that runs the tests has set."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEYS", "k1:hunter2"),
        ("SECRET_KEYS", "hunter2" + base64.b64encode(b"y" * 32).decode("ascii")),
        ("SECRET_KEYS", KEY + ",k2:hunter2" + base64.b64encode(b"z" * 16).decode("ascii")),
        ("DATABASE_POOL_SIZE", "hunter2"),
        ("PORT", "-2"),
        ("ENVIRONMENT", "hunter2"),
        ("STORAGE_BACKEND", "hunter2"),
        ("BASE_URL", "hunter2"),
        ("LOG_FORMAT", "hunter2"),
    ],
)
def test_a_bad_value_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as failure:
        load()
    assert name in str(failure.value)
    assert "hunter2" not in str(failure.value)
    assert failure.value.__cause__ is None
    assert failure.value.__suppress_context__


def test_all_missing_settings_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in REQUIRED:
        monkeypatch.delenv(name)
    with pytest.raises(SettingsError) as failure:
        load()
    assert all(name in str(failure.value) for name in REQUIRED)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"ENVIRONMENT": "production"}, "BASE_URL"),
        ({"STORAGE_BACKEND": "s3", "S3_ACCESS_KEY_ID": "id"}, "S3_SECRET_ACCESS_KEY"),
        ({"HEARTBEAT_SECONDS": "10", "LEASE_SECONDS": "20"}, "HEARTBEAT_SECONDS"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], named: str
) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=named):
        load()


def test_the_object_is_frozen_and_does_not_print_its_secrets() -> None:
    settings = load()
    with pytest.raises(ValidationError):
        settings.port = 1
    assert "pw@host" not in repr(settings)
    assert KEY not in repr(settings)


def test_lists_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOWED_ORIGINS", "https://a.example, https://b.example,")
    monkeypatch.setenv("SECRET_KEYS", "k2" + KEY[2:] + "," + KEY)
    settings = load()
    assert settings.allowed_origins == ("https://a.example", "https://b.example")
    assert list(settings.keyring) == ["k2", "k1"]
    assert settings.environment is Environment.DEVELOPMENT


# -- .env.example and compose.yml


def example() -> dict[str, str]:
    lines = (CHECKOUT / ".env.example").read_text(encoding="utf-8").splitlines()
    found = [match for line in lines if (match := re.fullmatch(r"(?:# )?([A-Z][A-Z0-9_]*)=(.*)", line))]
    return {match[1]: match[2] for match in found}


def test_the_example_is_what_the_code_says() -> None:
    written = (CHECKOUT / ".env.example").read_text(encoding="utf-8")
    assert written == cli.environment_example(), "run: make schema"


def test_the_example_has_every_setting_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    values = example()
    assert values.keys() == {name.upper() for name in Settings.model_fields} | FOR_COMPOSE
    for name, text in values.items():
        if text:
            monkeypatch.setenv(name, text)
    assert load() == Settings.model_validate(
        {**{name.lower(): value for name, value in REQUIRED.items()}, "data_dir": Path(values["DATA_DIR"])}
    )


def test_compose_uses_only_settings_that_exist() -> None:
    compose = (CHECKOUT / "compose.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{([A-Z0-9_]+)", compose)) <= example().keys()
    block = re.search(r"environment: &environment\n((?:    .+\n)+)", compose)
    assert block is not None
    assert {line.split(":")[0].strip() for line in block[1].splitlines()} <= example().keys()
