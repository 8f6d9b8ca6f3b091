"""Room for texts of several lines, which the application does not give by itself."""

from __future__ import annotations


def giveRoom(widget) -> None:
    """Makes a panel at least as high as its wrapped texts need at its present width.

    3D Slicer takes a module's widget out of its column when another module is opened, and puts it back later. From
    then on that column keeps the first height that it once asked for (``QWidgetItemV2`` remembers heights for widths,
    and is not told of changes), and a panel that grows is squeezed until texts and buttons are cut off. A minimum
    height is always asked for anew.
    """
    height = widget.layout().heightForWidth(widget.width)
    if height > 0 and height != widget.minimumHeight:
        widget.minimumHeight = height
