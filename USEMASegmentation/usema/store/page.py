"""An index as a page for people: one HTML file without scripts, beside ``models.json``. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any

from .index import Index

PAGE_FILE = "models.html"
ON_THE_CARD = ("calibration", "robustness", "speeds")  # metrics that the model card shows, and this page not


def render(index: Index) -> str:
    """The page; links and pictures stay relative where the index has them so.

    Args:
        index: any valid index; nothing in it is taken for HTML.
    """
    models = index.document["models"]
    count = f"{len(models)} model{'' if len(models) == 1 else 's'}"
    return f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(index.title)}</title>
<style>{_STYLE}</style>
<header>
<h1>{escape(index.title)}</h1>
<p>{count} for USEMA, in 3D Slicer and on the command line. For research and teaching; a person must check every
result.</p>
</header>
<main>
{"".join(map(_card, models))}</main>
<footer>If this index is new to your computer, add it by the address of this page's folder:
<code>usema models index add ADDRESS</code>. Generated from <a href="models.json">models.json</a> by
<code>usema models publish</code>.</footer>
</html>
"""


def _card(model: dict[str, Any]) -> str:
    licence = model["licence"]
    use = "" if licence["commercial_use"] else '<span class="warn">not for commercial use</span>'
    named = escape(licence["name"])
    named = f'<a href="{escape(licence["url"])}">{named}</a>' if licence["url"] else named
    picture = ""
    if "picture" in model:
        picture = f'<img src="{escape(model["picture"])}" alt="{escape(model["title"])}: a result">'
    labels = "".join(
        f'<li><i style="background:rgb({",".join(str(int(part)) for part in label["color"])})"></i>'
        f"{escape(label['name'])}</li>"
        for label in model["labels"]
    )
    rows = _rows({key: value for key, value in model["metrics"].items() if key not in ON_THE_CARD})
    metrics = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    mirrors = " ".join(
        f'<a href="{escape(url)}">{"Download" if number == 1 else f"mirror {number}"}</a>'
        for number, url in enumerate(model["file"]["urls"], 1)
    )
    return f"""<article id="{escape(model["name"])}">
{picture}
<h2>{escape(model["title"])}</h2>
<p class="chips"><span>{escape(model["modality"])}</span><span>version {escape(model["version"])}</span><span>{
        model["file"]["size"] / 1e6:.1f} MB</span><span>{escape(licence["name"])}</span>{use}</p>
<p>{escape(model["description"])}</p>
<p class="quiet">The volume must show: {escape(model["anatomy"])}</p>
<h3>Segments</h3>
<ul class="labels">{labels}</ul>
<h3>Measured</h3>
<table>{metrics or "<tr><td>nothing reported</td></tr>"}</table>
<h3>Get it</h3>
<p><code>usema models download {escape(model["name"])}</code> {mirrors}</p>
<details><summary>Licence, citation, hash</summary>
<dl>
<dt>Licence</dt><dd>{named}.
{escape(licence["attribution"])}</dd>
<dt>Citation</dt><dd>{escape(model["citation"])}</dd>
<dt>Needs</dt><dd>USEMA {escape(model["minimum_engine"])} or newer</dd>
<dt>SHA-256</dt><dd class="hash">{model["file"]["sha256"]}</dd>
</dl></details>
</article>
"""


def _rows(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Free metrics as (name, value) rows: {"dice": {"liver": 0.9}} -> ("dice · liver", "0.9")."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _rows(inner, f"{name} · {key}" if name else key)
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        yield name.replace("_", " "), text


_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --quiet: #5b6675; --paper: #f4f6f8; --card: #fff; --line: #dde3ea;
  --accent: #0b6bcb; --warn: #9a4b00; --warn-paper: #fff1de; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf1; --quiet: #9aa7b6; --paper: #12161c; --card: #1b2129;
  --line: #2f3944; --accent: #6db3ff; --warn: #ffc98a; --warn-paper: #3a2a14; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 2.5rem 1.5rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 2rem; } h2 { margin: 0; font-size: 1.25rem; }
h3 { margin: 1.1rem 0 .35rem; font-size: .75rem; letter-spacing: .08em; text-transform: uppercase;
  color: var(--quiet); }
p { margin: .5rem 0; } header p, .quiet, footer { color: var(--quiet); } a { color: var(--accent); }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)); gap: 1.5rem;
  margin: 2rem 0; align-items: start; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1.4rem;
  overflow: hidden; }
article > img { display: block; width: calc(100% + 2.8rem); margin: -1.4rem -1.4rem 1.2rem; background: #000; }
.chips span { display: inline-block; margin: 0 .4rem .2rem 0; padding: .05rem .6rem; border: 1px solid var(--line);
  border-radius: 99px; font-size: .85rem; }
.chips .warn { color: var(--warn); background: var(--warn-paper); border-color: transparent; }
.labels { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 0; padding: 0; list-style: none; }
.labels i { display: inline-block; width: .8em; height: .8em; margin-right: .45em; border-radius: 3px; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { padding: .2rem 0; border-bottom: 1px solid var(--line); text-align: left; font-weight: normal; }
th + td { text-align: right; font-variant-numeric: tabular-nums; }
code { padding: .15rem .45rem; background: var(--paper); border: 1px solid var(--line); border-radius: 6px;
  font-size: .88rem; }
details { margin-top: 1rem; } summary { cursor: pointer; color: var(--quiet); }
dl { margin: .5rem 0 0; font-size: .9rem; } dt { color: var(--quiet); }
dd { margin: 0 0 .5rem; overflow-wrap: anywhere; }
.hash { font-family: ui-monospace, monospace; font-size: .8rem; }
"""
