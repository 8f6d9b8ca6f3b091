"""What logits mean: the label of the largest, and how sure the surest label is, as found the long way."""

from __future__ import annotations

import pytest
import torch
from usema.inference.outputs import Outputs


def logits_like(case: str, outputs: int) -> torch.Tensor:
    """Logits (outputs, 3, 40, 50): noise; as of organs; or rounded, so that many voxels have several largest."""
    generator = torch.Generator().manual_seed(outputs)
    logits = 2 * torch.randn(outputs, 3, 40, 50, generator=generator)
    if case == "organs":
        own = torch.randint(outputs, (1, 3, 40, 5), generator=generator).repeat_interleave(10, dim=3)
        logits.scatter_add_(0, own, torch.full(own.shape, 6.0))
    return logits.round() if case == "ties" else logits


@pytest.mark.parametrize("outputs", [2, 3, 20, 50, 51, 300])
@pytest.mark.parametrize("case", ["noise", "organs", "ties"])
def test_a_label_is_the_first_of_the_largest_outputs(case, outputs):
    logits = logits_like(case, outputs)
    means = Outputs.classes(outputs)
    chosen, largest = first = means.first_largest(logits)
    assert torch.equal(chosen.long(), logits.argmax(0))
    assert torch.equal(largest, logits.amax(0))
    for labels in (means.to_labels(logits), means.to_labels(logits, first=first)):
        assert torch.equal(labels.long(), logits.argmax(0))


def test_outputs_that_share_labels_and_leave_some_out_are_mapped():
    logits = logits_like("ties", 5)
    labels = Outputs([0, 3, 1, 0, 1], 3).to_labels(logits)
    assert torch.equal(labels.long(), torch.tensor([0, 3, 1, 0, 1])[logits.argmax(0)])


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("outputs", [2, 3, 20])
@pytest.mark.parametrize("case", ["noise", "organs", "ties"])
def test_the_highest_probability_is_that_of_all_voxels(case, outputs, temperature):
    logits, found = logits_like(case, outputs), 0.0
    means = Outputs.classes(outputs, temperature)
    expected = means.probabilities(logits.double())[1:].amax().item()
    assert means.highest(logits) == pytest.approx(expected, abs=1e-6)
    for part in logits.split(1, dim=1):
        found = means.highest(part, found, means.first_largest(part))
    assert found == pytest.approx(expected, abs=1e-6 if expected < 0.995 else 0.005), "told as 1.00"
    assert means.highest(logits, 0.996) == 0.996


def test_background_everywhere_gives_the_little_that_there_is():
    logits = torch.zeros(3, 1, 4, 4)
    logits[0] = 9.0
    logits[2, 0, 1, 1] = 5.0
    means = Outputs.classes(3)
    assert means.highest(logits) == pytest.approx(means.probabilities(logits)[1:].amax().item(), rel=1e-5)
