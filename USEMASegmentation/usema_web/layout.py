"""The page: tools at the left, one of them open beside them, the views."""

from __future__ import annotations

from collections.abc import Callable

from trame.ui.vuetify3 import VAppLayout
from trame.widgets import client, html
from trame.widgets.vuetify3 import Template, VAppBar, VDivider, VMain, VNavigationDrawer, VSpacer, VToolbarTitle
from trame_server.utils.typed_state import TypedState
from trame_slicer.app.ui import SegmentEditorUI, VolumePropertyUI
from trame_slicer.app.ui.control_button import ControlButton
from trame_slicer.app.ui.download_scene_button import DownloadSceneButton
from trame_slicer.app.ui.flex_container import FlexContainer
from trame_slicer.app.ui.layout_button import LayoutButton
from trame_slicer.app.ui.load_volume_ui import LoadVolumeUI
from trame_slicer.app.ui.mpr_interaction_button import MprInteractionButton
from trame_slicer.app.ui.segmentation import SegmentEditorToolbarUI, SegmentEditorUndoRedoUI
from trame_slicer.app.ui.viewer_layout import ViewerLayoutState

USEMA, EDITOR, WINDOW = "usema", SegmentEditorUI.__name__, VolumePropertyUI.__name__  # tools
_NARROW = {"disable_resize_watcher": True, "disable_route_watcher": True, "permanent": True, "location": "left"}


class Layout(VAppLayout):
    """Builds the page; trame-slicer's own parts do the viewing and editing.

    Args:
        server: of trame.
        make_section: builds the section *USEMA Segmentation* inside the open tool; takes what shows it.
        fill_views: builds the views inside the page.
        look: called when the section is opened, for a segmentation may have been painted meanwhile.
    """

    def __init__(self, server, make_section: Callable, fill_views: Callable, look: Callable[[], None]):
        super().__init__(server, template_name="main")
        self._shown, self._look = TypedState(self.state, ViewerLayoutState), look
        self.open(USEMA)
        self.root.theme = "dark"  # as radiologists' rooms are
        with self:
            client.Style("html { overflow-y: hidden; }")
            with VAppBar(density="compact"):
                with Template(v_slot_prepend=True):
                    self.opening = LoadVolumeUI()
                    self.scene_download = DownloadSceneButton()
                VToolbarTitle("USEMA Segmentation", style="user-select: none;")
                html.Div("Views and editor: trame-slicer", classes="text-caption text-medium-emphasis mr-4")
            with VMain():
                self.content = FlexContainer(row=True, fill_height=True)
            with VNavigationDrawer(v_model=(self._shown.name.is_drawer_visible,), width=350, **_NARROW):
                make_section(v_if=self._is_open(USEMA))
                self.editor = SegmentEditorUI(v_if=self._is_open(EDITOR))
                self.window = VolumePropertyUI(v_if=self._is_open(WINDOW))
            with VNavigationDrawer(width=40, **_NARROW), FlexContainer(fill_height=True):
                self._tools()
            with self.content:
                fill_views(self)

    def open(self, tool: str) -> None:
        """Open a tool at the left."""
        self._shown.data.is_drawer_visible, self._shown.data.active_tool = True, tool

    def _back(self) -> None:
        self._look()
        self.open(USEMA)

    def let_work(self) -> None:
        """There is a volume: the tools may be used."""
        self._shown.data.is_volume_loaded = True

    def _tools(self) -> None:
        with FlexContainer(classes="py-2", align="center"):
            self._tool("USEMA Segmentation", "mdi-brain", USEMA, click=self._back)
            empty = {"classes": "mt-1", "disabled": (f"!{self._shown.name.is_volume_loaded}",)}
            self._tool("Segment editor", "mdi-brush", EDITOR, **empty)
            self._tool("Window and level", "mdi-tune-variant", WINDOW, **empty)
            self.views = LayoutButton(**empty)
            self.mpr = MprInteractionButton(**empty)
            SegmentEditorToolbarUI(editor_ui=self.editor, v_if=self._is_open(EDITOR))
        VDivider()
        VSpacer()
        VDivider()
        with FlexContainer(classes="py-2", align="center"):
            SegmentEditorUndoRedoUI(editor_ui=self.editor)

    def _tool(self, name: str, icon: str, tool: str, **options) -> None:
        options = {"click": lambda: self.open(tool), **options}
        ControlButton(name=name, icon=icon, active=self._is_open(tool), **options)

    def _is_open(self, tool: str) -> tuple[str]:
        return (f"{self._shown.name.active_tool} === '{tool}'",)
