"""A figure as a file of its own, with the colours of the page that it comes from, for light and dark."""

from __future__ import annotations

from pathlib import Path

from meltrepro.report.values import Figure

_STYLE = Path(__file__).parent.parent / "templates" / "style.css"
_GROUND = "svg { background: var(--ground); font-family: system-ui, sans-serif }"


def alone(figure: Figure) -> bytes | None:
    """The drawing as an SVG file; `None` where there is none."""
    if figure.svg is None:
        return None
    style = f"<style><![CDATA[\n{_STYLE.read_text(encoding='utf-8')}{_GROUND}\n]]></style>"
    head, mark, rest = figure.svg.partition(">")
    name = ' xmlns="http://www.w3.org/2000/svg"'
    return f"{head}{'' if name in head else name}{mark}{style}{rest}\n".encode()
