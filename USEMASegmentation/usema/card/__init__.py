"""The model card: what a model is for, how it was measured, and where it fails, in a bundle's folder.

    labelled cases -> measure -> card/cases.json, card/worst-*.png, metrics.validation -> figures, text -> card.md

``card.md`` is made from ``model.json`` and ``card/cases.json`` alone: it can be made again without running the model.
Its sections follow Mitchell et al. 2019, "Model Cards for Model Reporting" (arXiv 1810.03993).

This file is imported by what opens the panel: standard library only.
"""

CARD_FILE = "card.md"
CASES_FILE = "card/cases.json"
PICTURES = ("card/worst-1.png", "card/worst-2.png", "card/worst-3.png")
RELIABILITY_PICTURE = "card/reliability.png"
# All that a card may consist of; nothing else in the folder travels with a bundle.
FILES = (CARD_FILE, CASES_FILE, *PICTURES, RELIABILITY_PICTURE)
