"""What the project's pages have in common: one file each, no script, nothing fetched. Serves the reports."""

from __future__ import annotations

import io
from html import escape
from typing import Any

_BASE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
  :root { color-scheme: light; }
  body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; max-width: {{ width }}rem;
         margin: 2rem auto; padding: 0 1rem; }
  h1 { font-size: 1.6rem; line-height: 1.2; }
  h2 { font-size: 1.15rem; margin-top: 2rem; }
  .scroll { overflow-x: auto; }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
  th, td { padding: .35rem .8rem; border-bottom: 1px solid #ddd; text-align: right; }
  th { vertical-align: bottom; font-weight: 600; }
  th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; white-space: nowrap; }
  td.text, .texts th, .texts td { text-align: left; white-space: normal; }
  figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dt { font-weight: 600; }
  dd { margin: 0; overflow-wrap: anywhere; }
  code { font-size: .92em; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% block body %}{% endblock %}
</body>
</html>
"""
STYLE: Any = {"svg.fonttype": "path", "svg.hashsalt": "squeezebert", "font.size": 10}
"""matplotlib's settings for pictures that are the same bytes each time."""


def render(body: str, title: str, *, width: int = 62, **values: Any) -> str:
    """Return a page of `title` whose body is the Jinja template `body`, filled with `values`; `width` is in rem."""
    from jinja2 import DictLoader, Environment

    page = "{% extends 'base' %}{% block body %}" + body + "{% endblock %}"
    pages = Environment(autoescape=True, trim_blocks=True, loader=DictLoader({"base": _BASE, "page": page}))
    return pages.get_template("page").render(title=title, width=width, **values)


def svg_of(figure: Any, label: str) -> str:
    """Return a matplotlib figure as an SVG element, and close it; `label` is what a screen reader says of it."""
    from matplotlib import pyplot

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(label, quote=True)}"', 1)
