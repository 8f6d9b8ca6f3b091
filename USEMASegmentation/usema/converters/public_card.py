"""The model card of a public model: who made it, on which terms, how to cite it. Standard library only."""

from __future__ import annotations

import re

from .public import PublicModel

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#])")


def facts(model: PublicModel) -> list[tuple[str, str]]:
    """(what, sentence): all that a user should know of whose model it is, plain text."""
    licence = model.licence
    use = {"yes": "open", "not stated": "its terms are not stated clearly"}.get(licence.get("open", ""), "")
    stated = licence.get("stated_at")
    tried = (
        "USEMA was run on the publisher's own weights."
        if model.tried
        else "USEMA's way of running it was tested on stand-ins of the same form, not yet on the publisher's weights: "
        "check its results twice."
    )
    sums = [f"{file.url.rpartition('/')[2]}: {file.sha256 or 'none published'}" for file in model.files]
    rows = [
        ("Made by", f"{model.publisher}, {model.publisher_url}. USEMA's makers did not train it."),
        ("Licence", f"{licence['name']}{f' ({use})' if use else ''}, {licence['url']}"),
        ("Stated in", stated or "not stated where"),
        ("Please cite", model.citation),
        ("Input", f"{model.modality}, {model.region}: {', '.join(model.channels)}"),
        ("Finds", ", ".join(model.labels)),
        ("Note", model.note),
        ("Tested", tried),
        ("Downloaded from", ", ".join(file.url for file in model.files)),
        ("SHA-256", "; ".join(sums)),
    ]
    if model.needs:
        rows.append(("Region found by", ", ".join(model.needs)))
    return [(what, sentence) for what, sentence in rows if sentence]


def markdown(model: PublicModel) -> str:
    """The card as a file."""
    lines = [f"# {_escaped(model.title)}", ""]
    for what, sentence in facts(model):
        lines += [f"**{what}:** {_escaped(sentence)}", ""]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Nothing of a publisher's words is markup."""
    return " ".join(part if "://" in part else _MARKDOWN.sub(r"\\\1", part) for part in text.split(" "))
