"""The Slicer side of USEMA: MRML and the panel. Never imports torch; only the room Panel knows Qt."""
