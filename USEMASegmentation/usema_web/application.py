"""The server: trame-slicer's views and editor, the panel's logic, and the page that joins them."""

from __future__ import annotations

import asyncio
import base64
import errno
import socket
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from trame.app import TrameApp
from trame_server.utils.asynchronous import create_task
from trame_server.utils.typed_state import TypedState
from trame_slicer import module as trame_slicer_module
from trame_slicer.app.logic.download_scene_logic import DownloadSceneLogic
from trame_slicer.app.logic.layout_button_logic import LayoutButtonLogic
from trame_slicer.app.logic.mpr_interaction_button_logic import MprInteractionButtonLogic
from trame_slicer.app.logic.segmentation import SegmentEditorLogic
from trame_slicer.app.logic.volume_property_logic import VolumePropertyLogic
from trame_slicer.app.ui.load_volume_ui import LoadVolumeState
from trame_slicer.rca_view import register_rca_factories
from usema.errors import InputError, UsemaError
from usema.resources import resources_folder

from . import files
from .access import PARAMETER, protect
from .host import Host

_POLL_SECONDS = 0.1


class Application(TrameApp):
    """One person's server.

    Args:
        token: what the address must hold.
        paths: to open at the start.
        server: of trame; None: the one of this process.
    """

    def __init__(self, token: str, paths: Sequence[Path] = (), server=None):
        super().__init__(server)
        self._token = token
        self._paths = list(paths)
        self._following: asyncio.Task | None = None
        self._by_hand: set[str] = set()  # IDs of segmentations that nothing was segmented into
        self.server.enable_module(trame_slicer_module)
        self.host = Host()
        from .flow import Flow  # the panel's logic needs the host's members
        from .layout import Layout
        from .section import Section, word

        self._word = word
        app = self.host.app
        register_rca_factories(app.view_manager, self.server)
        views = LayoutButtonLogic(self.server, app)  # before the editor: its brushes belong to views that are there
        self._editor = SegmentEditorLogic(self.server, app)
        self._window: VolumePropertyLogic | None = None  # it cannot do without a volume
        scene, mpr = DownloadSceneLogic(self.server, app), MprInteractionButtonLogic(self.server, app)
        self.flow = Flow(self)

        def make_section(**options) -> None:
            Section(self.flow, self._do, self._correct, self._segmentation_file, **options)

        fill_views = views.layout_manager.initialize_layout_grid
        self.layout = Layout(self.server, make_section, fill_views, self.flow.look)
        for logic, ui in (
            (self._editor, self.layout.editor),
            (views, self.layout.views),
            (scene, self.layout.scene_download),
            (mpr, self.layout.mpr),
        ):
            logic.set_ui(ui)
        self.layout.opening.on_load_volume.connect(self._open)
        self.server.state["trame__title"] = "USEMA Segmentation"
        icon = base64.b64encode((resources_folder() / "Icons/USEMA.png").read_bytes()).decode()
        self.server.state["trame__favicon"] = f"data:image/png;base64,{icon}"

    # Page

    def show(self, **words) -> None:
        self.server.state.update({self._word(name): value for name, value in words.items()})

    def display(self, volume, segmentation) -> None:
        app = self.host.app
        if volume is None:
            return
        editor = app.segmentation_editor
        for node in list(app.scene.GetNodesByClass("vtkMRMLSegmentationNode")):
            node.SetDisplayVisibility(node is segmentation)
        if editor.active_volume_node is not volume:
            app.display_manager.show_volume_in_slice_background(volume)
            app.display_manager.reset_views()
            self._show_window_of(volume)
        editor.deactivate_effect()
        if segmentation is None:  # to paint one by hand
            segmentation = editor.create_empty_segmentation_node()
            segmentation.SetName(f"{volume.GetName()} by hand")
            self._by_hand.add(segmentation.GetID())
        editor.set_active_segmentation(segmentation, volume)
        for node in filter(None, map(app.scene.GetNodeByID, self._by_hand - {segmentation.GetID()})):
            if not node.GetSegmentation().GetNumberOfSegments():
                app.scene.RemoveNode(node)  # nobody painted anything
        self.layout.let_work()

    def look(self, place: tuple[float, float, float]) -> None:
        for view in self.host.app.scene.GetNodesByClass("vtkMRMLSliceNode"):
            view.JumpSliceByCentering(*place)

    def _show_window_of(self, volume) -> None:
        app = self.host.app
        # It also sets how the volume is rendered in 3D, for which it needs a node; without a GPU that takes minutes,
        # so it is not shown.
        if not app.volume_rendering.has_vr_display_node(volume):
            app.volume_rendering.create_display_node(volume, "").SetVisibility(False)
        if self._window is None:
            self._window = VolumePropertyLogic(self.server, app)
            self._window.set_ui(self.layout.window)
        self._window.on_volume_changed(volume)

    # What is clicked

    def _do(self, action: Callable[[], None]) -> None:
        """Run what a click means, and follow what it began until it is done."""
        action()
        if self.flow.busy and (self._following is None or self._following.done()):
            self._following = create_task(self._follow())

    async def _follow(self) -> None:
        while self.flow.busy:
            await asyncio.sleep(_POLL_SECONDS)
            with self.server.state:  # what it changes is sent to the browser
                self.flow.poll()

    def _correct(self) -> None:
        from .layout import EDITOR

        self.layout.open(EDITOR)

    def _open(self, sent: list[dict]) -> None:
        try:
            with TemporaryDirectory(dir=self.host.folder) as folder:
                self._add(files.receive(sent, Path(folder)))
        finally:
            sent.clear()  # the button's own list: it would send a file that cannot be read again with every other one

    def _page_left(self, others: int) -> None:
        """A page was closed or loaded again, maybe while it sent files: then nothing else says that this ended, and the
        button to open files would not come back. What was sent by half is dropped, unless it is another page's."""
        sending = TypedState(self.server.state, LoadVolumeState).data
        with self.server.state:
            sending.file_button.loading_busy = sending.dir_button.loading_busy = False
        if not others:
            opening = self.layout.opening
            for button in (opening.load_volume_files_button, opening.load_volume_dir_button):
                button.files.clear()

    def _add(self, paths: Sequence[Path]) -> None:
        try:
            opened = files.open_files(self.host.app, paths)
        except UsemaError as error:
            self.show(message=error.message, hint=error.hint, failed=True, notes=[], detail="")
            return
        if opened.volumes:
            self.flow.choose_volume(max(opened.volumes, key=lambda one: one.GetImageData().GetNumberOfPoints()).GetID())
        if opened.segmentations:
            self.flow.choose_segmentation(opened.segmentations[-1].GetID())
        told = [*(fault.message for fault in opened.faults), *opened.notes]
        hint = opened.faults[0].hint if opened.faults else ""
        message = told[0] if told else ""
        self.show(message=message, hint=hint, failed=bool(opened.faults), notes=told[1:], detail="")

    def _segmentation_file(self):
        try:
            return self.server.protocol.addAttachment(files.as_seg_nrrd(self.flow.segmentation))
        except UsemaError as error:
            self.show(message=error.message, hint=error.hint, failed=True)
            return None

    # The server

    def serve(self, host: str, port: int, browser: bool) -> None:
        """Serve until the process is stopped.

        Raises:
            InputError: nobody can listen there.
        """
        self.server.controller.on_server_bind.add(lambda server: protect(server.app, self._token, self._page_left))
        self.server.controller.on_server_ready.add(lambda **_: self._ready(host, browser))
        try:
            self.server.start(port=port, host=host, open_browser=False, show_connection_info=False)
        except OSError as error:
            if (reason := _why_not_listening(error, host, port)) is None:
                raise
            raise reason from error
        finally:
            self.flow.close()
            self.host.close()

    def _ready(self, host: str, browser: bool) -> None:
        shown = "127.0.0.1" if host in ("127.0.0.1", "localhost", "0.0.0.0") else host
        address = f"http://{shown}:{self.server.port}/?{PARAMETER}={self._token}"
        print(f"USEMA is at {address}", flush=True)
        print("The address holds the key to this session: one person, one scene. Stop it with Ctrl-C.", flush=True)
        if shown != "127.0.0.1":
            print("Anybody on the network can read what is sent: put a server with HTTPS before it.", flush=True)
        if self._paths:
            self.server.controller.on_client_connected.add(self._open_at_start)
        if browser:
            webbrowser.open(address)

    def _open_at_start(self, *_, **__) -> None:
        paths, self._paths = self._paths, []
        if paths:
            with self.server.state:
                self._add(paths)


def _why_not_listening(error: OSError, host: str, port: int) -> InputError | None:
    """What an address that cannot be listened on is told; None: the error is another one."""
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return InputError(
            f"{host} is no address of this computer, so nobody can listen there.",
            "Leave out --host to listen to this computer alone, or give one of its addresses.",
        )
    if error.errno == errno.EADDRINUSE:
        return InputError(
            f"Port {port} of {host} is in use by another program.",
            "Give another one as --port, or leave it out: then a free one is taken.",
        )
    if error.errno == errno.EACCES:
        return InputError(
            f"This user may not listen on port {port} of {host}.",
            "Give a --port from 1024 on, or leave it out: then a free one is taken.",
        )
    return None
