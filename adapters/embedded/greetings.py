"""What `switchyard run` says once everything answers: where to look, and the password that is shown only once."""

from __future__ import annotations

from settings import Settings


def greeting(settings: Settings, admin_email: str, password: str | None, practice_url: str | None) -> str:
    """The text for the terminal."""
    lines = [
        "",
        "  Switchyard is ready.",
        "",
        f"    Address        {settings.base_url}",
        f"    GraphiQL       {settings.base_url}/graphql",
    ]
    if password:
        lines += [
            f"    Administrator  {admin_email}",
            f"    Password       {password}   (shown only this once)",
        ]
    if practice_url:
        lines.append(f"    Practice site  {practice_url}   (small, to crawl first)")
        if practice_url.removeprefix("http://") in settings.build_allowed_hosts:
            lines.append(f"    Repository     {practice_url}/git/garden   (small, to deploy first)")
    lines.append(f"    Sites          {settings.site_url('<project>')}/")
    lines += [f"    Data           {settings.data_dir}", "", "  Ctrl-C stops everything.", ""]
    return "\n".join(lines)
