"""Training of USEMA inside nnU-Net v2, and the export of what was trained to a bundle. Nothing else needs this room."""
