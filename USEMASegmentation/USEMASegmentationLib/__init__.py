"""The Slicer side of USEMA: MRML and the panel. Never imports torch; only Widget.py and Installer.py know Qt."""
