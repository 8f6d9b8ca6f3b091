"""What is said of doubtful regions and how many are left. No Qt."""

from __future__ import annotations

from slicer.i18n import tr as _
from usema.quality.review_regions import GAP, PIECE

from ..Review.GuidedReview import ACCEPTED, FIXED, SKIPPED, GuidedReview, Item


def tell(review: GuidedReview) -> str:
    """The region that is looked at, and what is left."""
    item = review.current
    return progress(review) if item is None else f"{about(item)}\n{progress(review)}"


def progress(review: GuidedReview) -> str:
    """How many are done, and the error that is expected in the others."""
    count, done = len(review.items), review.done
    if not review.searched:
        return _("Leads from one doubtful place to the next, the largest expected error first.")
    if not count:
        return _("The model doubts nothing here. It may be wrong all the same.")
    if done == count:
        return _("All {count} regions are done.").format(count=count)
    return _("{done} of {count} done, about {ml:.2f} ml of expected error left.").format(
        done=done, count=count, ml=review.millilitresLeft
    )


def about(item: Item) -> str:
    """What a region is, where, how much is expected to be wrong, and what has become of it."""
    names = item.port.names
    kinds = {PIECE: _("A piece that lies apart"), GAP: _("A slice that was left out")}
    states = {ACCEPTED: _("accepted"), FIXED: _("corrected"), SKIPPED: _("skipped")}
    where = ", ".join(names[value] for value in item.region.values if value in names)
    text = _("{kind}, {where}: about {ml:.2f} ml").format(
        kind=kinds.get(item.region.why, _("Doubtful")), where=where, ml=item.region.ml
    )
    return f"{text} ({states[item.status]})" if item.status in states else text
