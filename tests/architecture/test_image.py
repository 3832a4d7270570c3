"""The image has all of our code: what a new file is called has to be said in one more place."""

from __future__ import annotations

from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PACKAGES = ("adapters", "models", "resolvers", "schema", "tasks")


def test_nothing_that_runs_is_left_out_of_the_image() -> None:
    let_in = {line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    modules = {path.name for path in CHECKOUT.glob("*.py")}
    assert modules
    assert {*modules, *PACKAGES} <= let_in
