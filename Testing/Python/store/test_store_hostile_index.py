"""An index that was made to harm: read by nobody, or shown as what it is; never as HTML, and never for ever."""

from __future__ import annotations

import json
import time

import pytest
from bundles import METADATA, weights
from html_page import Page
from index_cases import ENTRY, document, parsed
from usema.errors import BundleError, InputError
from usema.models import metadata
from usema.models.bundle_writing import write_bundle
from usema.store import index
from usema.store.page import render

EVIL = (
    '"><script>alert(1)</script>',
    "<img src=x onerror=alert(1)>",
    "'><svg onload=alert(1)>",
    "</title><style>*{display:none}</style>",
    "&lt;script&gt;",
)


def everywhere(text: str) -> dict:
    """A document that says something in all places where it may."""
    changes = {key: text for key in ("title", "description", "anatomy", "citation", "picture")}
    changes |= {"labels": [{"name": text, "color": [0, 0, 0]}], "metrics": {text: {text: [text], "b": text}}}
    changes["file"] = {**ENTRY["file"], "urls": [text]}
    url = f"https://{text}".replace(" ", "")
    changes["licence"] = {
        "name": text, "url": url, "commercial_use": False, "attribution": text, "open": "no", "stated_at": text,
    }  # fmt: skip
    return {**document(**changes), "title": text, "schema_version": 2}


@pytest.mark.parametrize("text", EVIL)
def test_what_looks_like_html_is_shown_as_it_is_written(text):
    harmless = Page(render(parsed(everywhere("harmless"))))
    page = Page(render(parsed(everywhere(text))))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in harmless.tags]
    assert [list(attributes) for _, attributes in page.tags] == [list(attributes) for _, attributes in harmless.tags]
    assert page.text.count(text) == harmless.text.count("harmless")


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "JaVaScRiPt:alert(1)", "java\tscript:alert(1)", " javascript:alert(1)",
     "\x01javascript:alert(1)", "data:text/html,<script>alert(1)</script>", "vbscript:x", "file:///etc/passwd",
     "x.usema\n", "x" * 3000],
)  # fmt: skip
@pytest.mark.parametrize("where", ["file", "picture", "licence"])
def test_an_address_that_runs_something_is_refused(url, where):
    changes = {
        "file": {"file": {**ENTRY["file"], "urls": [url]}},
        "picture": {"picture": url},
        "licence": {"licence": {**ENTRY["licence"], "url": url}},
    }[where]
    for place in ("https://a.org/models.json", "/mnt/models.json"):
        with pytest.raises(InputError):
            parsed(document(**changes), place)


@pytest.mark.parametrize("text", ["\x1b[2J\x1b[1;1Hfree", "a\x07", "a\rb\x08", "a\x9b2J", "\u202eeuqinu", "\x00"])
def test_what_moves_a_terminal_s_cursor_is_refused(text):
    for changes in ({"title": text}, {"labels": [{"name": text, "color": [0, 0, 0]}]}, {"metrics": {text: 1}}):
        with pytest.raises(InputError, match=r"not valid JSON.*holds the character"):
            parsed(document(**changes))


ABSURD = {
    "a size of more bytes than there are": {"file": {**ENTRY["file"], "size": 10**400}},
    "a size that is no number of bytes": {"file": {**ENTRY["file"], "size": 1e15}},
    "a title of a megabyte": {"title": "x" * 10**6},
    "a name that no folder can have": {"name": "x" * 300},
    "a version that no folder can have": {"version": "1.0.0-" + "x" * 300},
    "a label of a megabyte": {"labels": [{"name": "x" * 10**6, "color": [0, 0, 0]}]},
    "ten thousand labels": {"labels": [{"name": f"{n}", "color": [0, 0, 0]} for n in range(10_000)]},
    "ten thousand mirrors": {"file": {**ENTRY["file"], "urls": [f"{n}.usema" for n in range(10_000)]}},
    "metrics a thousand deep": {"metrics": json.loads('{"a":' * 900 + "1" + "}" * 900)},
}


@pytest.mark.parametrize("what", ABSURD)
def test_absurd_sizes_are_refused_at_once(what):
    started = time.monotonic()
    with pytest.raises(InputError, match="not valid") as caught:
        parsed(document(**ABSURD[what]))
    assert len(caught.value.message) < 500
    assert time.monotonic() - started < 2


def test_as_many_models_as_an_index_may_have_are_read_at_once():
    small = {**ENTRY, "description": "x"}
    many = {**document(), "models": [{**small, "name": f"m{number}"} for number in range(2000)]}
    started = time.monotonic()
    assert len(parsed(many).entries) == 2000
    assert time.monotonic() - started < 5
    many["models"].append({**small, "name": "one-more"})
    with pytest.raises(InputError, match=r"models is .* longer than 2000"):
        parsed(many)


def test_a_bundle_says_no_more_than_an_index_may(tmp_path):
    """Of what both say, no bundle is valid that could not be published."""
    too_long = {"title": "x" * 201, "name": "x" * 65, "version": "1.0.0-" + "x" * 60, "anatomy": "x" * 1001}
    for key, text in too_long.items():
        with pytest.raises(BundleError, match="longer than"):
            write_bundle(tmp_path / "a", {**METADATA, key: text}, weights())
    labels = [{**METADATA["labels"][0], "value": n, "name": f"{n}"} for n in range(1, 3001)]
    with pytest.raises(BundleError, match=r"labels is .* longer than 2048"):
        write_bundle(tmp_path / "a", {**METADATA, "labels": labels}, weights())


def test_both_schemas_have_the_same_limits():
    bundle, entry = metadata.SCHEMA["properties"], index.SCHEMA["$defs"]["model"]["properties"]
    limits = ("type", "minLength", "maxLength", "minItems", "maxItems", "pattern", "enum", "required")
    for key in ("name", "title", "description", "modality", "anatomy", "citation", "labels"):
        for limit in limits:
            assert bundle[key].get(limit) == entry[key].get(limit), (key, limit)
    for key, rule in entry["licence"]["properties"].items():
        for limit in limits:
            assert bundle["licence"]["properties"][key].get(limit) == rule.get(limit), (key, limit)
    assert set(bundle["licence"]["properties"]) == set(entry["licence"]["properties"])
