"""What is said of a result is true of the result, not of more."""

from __future__ import annotations

import numpy as np
from slicer_cases import MODEL, blobs
from USEMASegmentationLib.Parameters import Parameters
from USEMASegmentationLib.Scene.ResultWriter import Result
from USEMASegmentationLib.Scene.Summary import summary
from USEMASegmentationLib.Scene.VolumeBridge import wholeBox

pytest_plugins = ["slicer_fixtures"]


def said(labels, volume, **options) -> str:
    return summary(
        Result(labels, None, {}, MODEL, wholeBox(volume)), Parameters(inputVolume=volume, **options), 2
    ).message


def test_volumes_found_in_a_region_are_said_to_be_of_the_region(head):
    whole, region = said(blobs(), head), said(blobs(), head, roi=head)
    assert whole.startswith("Done in 2 s: Anterior")
    assert region == whole.replace("Done in 2 s", "Done in 2 s in the region of interest")


def test_where_nothing_was_found_in_a_region_the_segments_are_not_called_empty(head):
    nothing = np.zeros_like(blobs())
    assert said(nothing, head) == "Nothing was found: the segments are empty."
    assert said(nothing, head, roi=head) == "Nothing was found in the region of interest."
