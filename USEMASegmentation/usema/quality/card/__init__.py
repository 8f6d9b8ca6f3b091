"""The model card: what a model is for, how it was measured, and where it fails, in a bundle's folder.

    labelled cases -> measure -> card/cases.json, card/worst-*.png, metrics.validation -> figures, text -> card.md

``card.md`` is made from ``model.json`` and ``card/cases.json`` alone: it can be made again without running the model.
Its sections follow Mitchell et al. 2019, "Model Cards for Model Reporting" (arXiv 1810.03993).
"""
