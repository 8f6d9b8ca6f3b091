"""USEMA: segmentation of 3D medical images with SEMA attention.

This package never imports slicer, qt, ctk or vtk, and importing it loads neither torch nor anything else that
3D Slicer's own Python lacks: the panel must open before torch is installed.
"""

__version__ = "0.3.0"
