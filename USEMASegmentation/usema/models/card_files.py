"""Which files of a bundle's folder are its model card; ``usema.quality.card`` makes them. Standard library only."""

CARD_FILE = "card.md"
CASES_FILE = "card/cases.json"
PICTURES = ("card/worst-1.png", "card/worst-2.png", "card/worst-3.png")
RELIABILITY_PICTURE = "card/reliability.png"
# All that a card may consist of; nothing else in the folder travels with a bundle.
FILES = (CARD_FILE, CASES_FILE, *PICTURES, RELIABILITY_PICTURE)
