"""Folders of builds: removed however hostile they are, and a cache that is bounded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.build import workspaces


def test_a_folder_goes_however_deep_it_is(tmp_path: Path) -> None:
    top = tmp_path / "build"
    top.mkdir()
    here = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(3_000):  # deeper than calls nest, and than a path may be long
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    workspaces.remove(top)
    assert list(tmp_path.iterdir()) == []


def test_what_a_build_has_closed_goes_and_what_links_lead_to_stays(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    top = tmp_path / "build"
    (top / "closed" / "inner").mkdir(parents=True)
    (top / "closed" / "inner" / "file").write_text("x")
    (top / "away").symlink_to(kept)
    (top / "closed" / "away").symlink_to(kept / "file")
    os.mkfifo(top / "pipe")
    (top / "closed" / "inner").chmod(0)
    (top / "closed").chmod(0)
    workspaces.remove(top)
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"]
    assert (kept / "file").read_text() == "x"


def test_a_folder_that_is_gone_already_is_fine(tmp_path: Path) -> None:
    workspaces.remove(tmp_path / "nothing")


@pytest.mark.parametrize(("size", "is_emptied"), [(1_000, False), (300_000, True)])
async def test_a_cache_above_its_limit_is_forgotten_as_a_whole(tmp_path: Path, size: int, is_emptied: bool) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "package.tgz").write_bytes(b"x" * size)
    assert await workspaces.bound_cache(files, limit_bytes=100_000) is is_emptied
    assert files.exists() is not is_emptied
