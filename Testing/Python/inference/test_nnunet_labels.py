"""What nnU-Net's dataset.json says of labels, against nnU-Net's own label manager."""

from __future__ import annotations

import pytest
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from usema.errors import BundleError
from usema.inference.nnunet_labels import labels_of

LABELS = {
    "plain": ({"background": 0, "liver": 1, "spleen": 2}, None, ("liver", "spleen")),
    "listed out of order": ({"spleen": 2, "background": 0, "liver": 1}, None, ("liver", "spleen")),
    "one value in a list": ({"background": 0, "liver": [1], "spleen": 2}, None, ("liver", "spleen")),
    "with an ignore label": ({"background": 0, "liver": 1, "spleen": 2, "ignore": 3}, None, ("liver", "spleen")),
    "regions": (
        {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3},
        [1, 2, 3],
        ("whole without core", "core without enhancing", "enhancing"),
    ),
    "regions with an ignore label": (
        {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3},
        [1, 2],
        ("whole without core", "core"),
    ),
}


@pytest.mark.parametrize("name", LABELS)
def test_as_many_outputs_as_nnunets_network_has(name):
    labels, order, names = LABELS[name]
    manager = LabelManager(labels, order)
    found, regions = labels_of({"labels": labels, "regions_class_order": order}, "dataset.json")
    assert found == names
    assert (len(regions) or len(found) + 1) == manager.num_segmentation_heads
    assert list(regions) == (order or [])


@pytest.mark.parametrize(
    ("labels", "order", "words"),
    [
        ({"background": 0, "liver": 1, "spleen": 3}, None, r"the labels have the values \[1, 3\]"),
        ({"liver": 1}, None, "no label 'background'"),
        ({"background": 0, "liver": 1, "ignore": 3}, None, "'ignore' is 3, and should be 2"),
        ({"background": 0, "whole": [1, 2], "core": 2}, [1], r"regions_class_order is \[1\] for 2 regions"),
    ],
)
def test_labels_that_contradict_themselves_are_refused(labels, order, words):
    with pytest.raises(BundleError, match=words):
        labels_of({"labels": labels, "regions_class_order": order}, "dataset.json")
