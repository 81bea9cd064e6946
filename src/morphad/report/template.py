"""What every page shares: the house style, and how numbers read."""

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from morphad.base.wording import counted, exact_percent, percent

_HERE = Path(__file__).parent


def environment() -> jinja2.Environment:
    """Where templates are found; text is escaped, and an unknown name is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_unbroken,
    )
    environment.filters |= {"percent": percent, "exact_percent": exact_percent, "number": _number}
    environment.globals |= {
        "css": Markup((_HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        "counted": counted,
        "span": span,
    }
    return environment


def span(low: float, high: float) -> str:
    """An interval of rates: "3.1 to 7.2 %"."""
    first, second = percent(low), percent(high)
    return (
        f"{first.removesuffix(' %')} to {second}"
        if not first.startswith(("below", "above"))
        else f"{first} to {second}"
    )


def _unbroken(value: Any) -> Any:
    """Keep a number and its percent sign on one line."""
    return value.replace(" %", "\N{NO-BREAK SPACE}%") if type(value) is str else value


def _number(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}g}"
