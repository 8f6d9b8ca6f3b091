"""The section *USEMA Segmentation* of the page: what to segment, with what, how far it is, what came out."""

from __future__ import annotations

from collections.abc import Callable

from trame.widgets import html
from trame.widgets.vuetify3 import (
    VAlert,
    VBtn,
    VCard,
    VCardActions,
    VCardText,
    VDialog,
    VDivider,
    VProgressLinear,
    VSelect,
    VSpacer,
    VTextField,
)
from trame_slicer.app.ui.flex_container import FlexContainer

from .flow import Flow

_NO_NAME = r"/[^\p{L}\p{M}\p{N}_. -]/gu"  # letters that not every disk takes in a name; those of any script are taken


def word(name: str) -> str:
    """The name of a word of ``flow.WORDS`` in the page's state."""
    return f"usema_{name}"


class Section(FlexContainer):
    """Shows what the flow says, and calls it.

    Args:
        flow: does what is clicked.
        do: runs a function of the flow for a click, and follows what it began.
        correct: opens the editor.
        segmentation_file: called by the browser for the bytes to download.
    """

    def __init__(self, flow: Flow, do: Callable, correct: Callable, segmentation_file: Callable[[], bytes], **options):
        super().__init__(
            classes="pa-3 usema-section", style="gap: 10px; overflow-y: auto;", fill_height=True, **options
        )
        self._flow, self._do = flow, do
        with self:
            self._input()
            VDivider()
            self._run()
            VDivider()
            self._result(correct, segmentation_file)
        self._question()

    def _input(self) -> None:
        html.Div("Volume", classes="text-subtitle-2")
        self._select("volumes", "volume", "Open a file or a DICOM folder (top left)", self._flow.choose_volume)
        html.Div("Model", classes="text-subtitle-2")
        VTextField(
            v_model=(word("search"), ""),
            placeholder="Find a structure, such as liver",
            prepend_inner_icon="mdi-magnify",
            clearable=True,
            density="compact",
            variant="outlined",
            hide_details=True,
            classes="usema-search",
            # once the person has stopped typing for a moment
            update_modelValue=(
                "window.clearTimeout(window.usemaSearch); const text = $event || ''; window.usemaSearch = "
                f"window.setTimeout(() => trigger('{self._trigger(self._flow.search)}', [text]), 400)"
            ),
        )
        self._select("models", "model", "No model", self._flow.choose_model)
        html.Div(f"{{{{ {word('finds')} }}}}", classes="text-body-2")
        with html.Details(v_if=(word("licence"),), classes="text-caption"):
            html.Summary("Limits and licence")
            html.Div(f"{{{{ {word('limits')} }}}}")
            html.Div(f"{{{{ {word('licence')} }}}}")
        with FlexContainer(v_if=(f"{word('download')} || {word('downloading')}",), style="gap: 6px;"):
            VBtn(
                f"{{{{ {word('downloading')} ? 'Cancel the download' : {word('download')} }}}}",
                click=self._download_or_cancel,
                prepend_icon="mdi-download",
                variant="tonal",
                classes="usema-download",
            )
            with html.Div(v_if=(word("downloading"),)):
                VProgressLinear(model_value=(word("downloaded"),), height=6, color="primary")
                html.Div(f"{{{{ {word('downloadStep')} }}}}", classes="text-caption")

    def _run(self) -> None:
        VBtn(
            f"{{{{ {word('busy')} ? 'Cancel' : 'Segment' }}}}",
            # not again for the second half of a double click, which would cancel what the first began
            click=(self._segment_or_cancel, "[$event.detail]"),
            disabled=(f"!{word('ready')}",),
            color=(f"{word('busy')} ? 'error' : 'primary'",),
            size="large",
            block=True,
            classes="usema-segment",
        )
        with html.Div(v_if=(word("busy"),)):
            VProgressLinear(
                model_value=(word("progress"),),
                indeterminate=(f"{word('busy')} && !{word('progress')}",),
                height=8,
                color="primary",
            )
            html.Div(f"{{{{ {word('step')} }}}}", classes="text-caption usema-step")
        html.Div(
            f"{{{{ {word('reason')} }}}}",
            v_if=(word("reason"),),
            style="white-space: pre-line;",
            classes="text-caption usema-reason",
        )
        with VAlert(
            v_if=(word("message"),),
            type=(f"{word('failed')} ? 'error' : 'info'",),
            variant="tonal",
            density="compact",
            style="flex: none;",  # else it shrinks to nothing in a column
            classes="usema-message",
        ):
            html.Div(f"{{{{ {word('message')} }}}}")
            html.Div(f"{{{{ {word('hint')} }}}}", v_if=(word("hint"),), classes="text-caption mt-1")
            html.Div("{{ note }}", v_for=f"note in {word('notes')}", key="note", classes="text-caption mt-1")
            with html.Details(v_if=(word("detail"),), classes="text-caption mt-1"):
                html.Summary("Details")
                html.Pre(f"{{{{ {word('detail')} }}}}", style="white-space: pre-wrap; max-height: 9em; overflow: auto;")

    def _result(self, correct: Callable, segmentation_file: Callable[[], bytes]) -> None:
        html.Div("Segmentation", classes="text-subtitle-2")
        self._select("segmentations", "segmentation", "None yet", self._flow.choose_segmentation)
        name = f"({word('segmentations')}.find(one => one.value === {word('segmentation')}) || {{}}).title"
        with FlexContainer(row=True, style="gap: 8px;"):
            VBtn(
                "Correct",
                click=correct,
                disabled=(f"!{word('segmentation')}",),
                prepend_icon="mdi-brush",
                variant="tonal",
                classes="usema-correct",
            )
            VBtn(
                "Download",
                click=(
                    f"utils.download(({name} || 'segmentation').replace({_NO_NAME}, '_') + '.seg.nrrd', "
                    f"trigger('{self._trigger(segmentation_file)}'), 'application/octet-stream')"
                ),
                disabled=(f"!{word('segmentation')}",),
                prepend_icon="mdi-content-save",
                variant="tonal",
                classes="usema-save",
            )
        self._review()
        html.Div(
            "One process serves one person: whoever opens this page works on the same scene. Nothing is sent anywhere; "
            "download what you want to keep.",
            classes="text-caption text-medium-emphasis mt-auto",
        )

    def _review(self) -> None:
        review, left = self._flow.reviewing, f"!{word('regionsLeft')}"
        with FlexContainer(v_if=(word("reviewable"),), style="gap: 6px;", classes="usema-review"):
            html.Div("Doubtful regions", classes="text-subtitle-2")
            with FlexContainer(row=True, style="gap: 4px; flex-wrap: wrap;"):
                for name, action, disabled in (
                    ("Find", review.find, "false"),
                    ("Back", lambda: review.go(-1), left),
                    ("Next", lambda: review.go(1), left),
                    ("Accept", review.accept, f"!{word('region')}"),
                    ("Skip", review.skip, f"!{word('region')}"),
                ):
                    self._small(name, action, disabled)
            html.Div(f"{{{{ {word('regions')} }}}}", classes="text-caption", style="white-space: pre-line;")

    def _small(self, name: str, action: Callable[[], None], disabled: str) -> None:
        options = {"size": "small", "variant": "tonal", "classes": f"usema-{name.lower()}"}
        VBtn(name, click=lambda: self._do(action), disabled=(disabled,), style="min-width: 0;", **options)

    def _question(self) -> None:
        dialog = VDialog(model_value=(f"!!{word('question')}",), max_width=560, persistent=True)
        with dialog, VCard(classes="usema-question"):
            VCardText(v_html=(word("question"),))
            with VCardActions():
                VSpacer()
                VBtn("Cancel", click=lambda: self._do(self._flow.decline))
                VBtn("Download", color="primary", click=lambda: self._do(self._flow.download), classes="usema-yes")

    def _select(self, items: str, chosen: str, nothing: str, choose: Callable[[str], None]) -> None:
        VSelect(
            model_value=(f"{word(chosen)} || null",),  # an empty text would count as a choice
            items=(word(items),),
            update_modelValue=(lambda value: self._do(lambda: choose(value)), "[$event]"),
            placeholder=nothing,
            persistent_placeholder=True,
            density="compact",
            variant="outlined",
            hide_details=True,
            classes=f"usema-{chosen}",
        )

    def _trigger(self, function: Callable) -> str:
        return self.server.controller.trigger_name(function)

    def _segment_or_cancel(self, click: int) -> None:
        if click < 2:
            self._do(self._flow.segment_or_cancel)

    def _download_or_cancel(self) -> None:
        downloading = self._flow.logic.store.busy
        self._do(self._flow.cancel_download if downloading else self._flow.ask_to_download)
