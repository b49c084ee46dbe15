"""Take Thebe out of every page (a Sphinx extension).

Jupyter Book always adds it; it would run cells on somebody else's server, and its script comes from one. The book
loads nothing that it does not serve itself.
"""
from __future__ import annotations


def _without_thebe(app, pagename: str, template: str, context: dict, doctree) -> None:
    context["script_files"] = [
        script for script in context.get("script_files", [])
        if "thebe" not in f"{getattr(script, 'filename', script)} {getattr(script, 'attributes', {})}".lower()]


def setup(app) -> dict:
    app.connect("html-page-context", _without_thebe, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
