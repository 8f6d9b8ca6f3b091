"""USEMA in a browser, for people without 3D Slicer: the panel's own logic over trame-slicer's views and editor.

The server computes and draws; the browser shows pictures and sends clicks. One process serves one person: whoever has
its address and token shares one scene. Start it with ``usema web``.
"""
