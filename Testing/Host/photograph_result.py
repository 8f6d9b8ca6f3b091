"""A picture of a model's result in slice and 3D views, from a real MRML scene: the bundled model's on the sample, or
that of a model which is on this computer on another volume.

    VTK_DEFAULT_OPENGL_WINDOW=vtkEGLRenderWindow python Testing/Host/photograph_result.py FILE.png [VOLUME MODEL]

In place of a model, the .seg.nrrd of an earlier result does as well. Of many segments there is a legend. Volume,
segmentation and closed surfaces are the scene's own nodes, made by the panel's logic and its worker; only the views are
drawn here, because the application's need Qt.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import vtk
from mrml_host import MrmlHost

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "USEMASegmentation"))

FINER = 2  # rendered so many times as large, and averaged: no steps in the outlines
SIZE, LEGEND_HEIGHT, LEGEND_COLUMNS = (1280, 1120), 200, 3  # pixels
MANY = 3  # from here on there is a legend

# 3D Slicer's own colours of the slice views, where each looks from and which way is up (RAS), and where it stands. The
# patient's right is on the left of the picture, in sagittal slices what is anterior.
VIEWS = (
    ("Axial", (0.95, 0.29, 0.20), 2, (0, 0, -1), (0, 1, 0), (0.0, 0.5, 0.5, 1.0)),
    ("Sagittal", (0.93, 0.84, 0.30), 0, (-1, 0, 0), (0, 0, 1), (0.0, 0.0, 0.5, 0.5)),
    ("Coronal", (0.43, 0.69, 0.29), 1, (0, 1, 0), (0, 0, 1), (0.5, 0.0, 1.0, 0.5)),
)


def segment(host: MrmlHost, path: str = "", model: str = "hippocampus-mr"):
    """(volume node, segmentation node with closed surfaces); of the sample, if no volume is named."""
    from usema.resources import sample_volume
    from USEMASegmentationLib.Logic import USEMASegmentationLogic

    volume = host.loadVolume(Path(path) if path else sample_volume())
    if model.endswith(".seg.nrrd"):
        return volume, load(host, model)
    logic = USEMASegmentationLogic()
    try:
        segmentation = logic.segment(volume, model, show3D=True)
    finally:
        logic.shutdown()
    segmentation.CreateClosedSurfaceRepresentation()
    return volume, segmentation


def load(host: MrmlHost, path: str):
    """A saved segmentation, with closed surfaces."""
    segmentation = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = host.scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(path)
    assert storage.ReadData(segmentation), f"{path} cannot be read"
    segmentation.CreateClosedSurfaceRepresentation()
    return segmentation


def surfaces(segmentation) -> list[tuple[vtk.vtkPolyData, tuple[float, float, float], str]]:
    """Each segment's closed surface, in RAS, its colour and its name; the largest first."""
    found = []
    for segment_id in segmentation.GetSegmentation().GetSegmentIDs():
        surface, segment = vtk.vtkPolyData(), segmentation.GetSegmentation().GetSegment(segment_id)
        segmentation.GetClosedSurfaceRepresentation(segment_id, surface)
        found.append((surface, segment.GetColor(), segment.GetName()))
    return sorted(found, key=lambda one: -np.diff(np.reshape(one[0].GetBounds(), (3, 2))).prod())


def slice_actor(volume, axis: int, centre: np.ndarray, without_air: bool = False) -> vtk.vtkImageSlice:
    """The plane through ``centre`` (RAS) across the volume's axis nearest to this one of R, A, S."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    to_ras = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
    ijk = (np.linalg.inv(to_ras) @ [*centre, 1])[:3]
    across = int(np.abs(to_ras[axis, :3]).argmax())
    mapper = vtk.vtkImageSliceMapper()
    mapper.SetInputData(volume.GetImageData())
    mapper.SetOrientation(across)
    mapper.SetSliceNumber(round(float(ijk[across])))
    low, high = volume.GetImageData().GetScalarRange()
    actor = vtk.vtkImageSlice()
    actor.SetMapper(mapper)
    actor.SetUserMatrix(matrix)
    window, level = (high - low) * 0.6, low + (high - low) * 0.33
    actor.GetProperty().SetColorWindow(window)
    actor.GetProperty().SetColorLevel(level)
    if without_air:
        grey = vtk.vtkLookupTable()
        grey.SetRange(level - window / 2, level + window / 2)
        grey.SetSaturationRange(0, 0)
        grey.SetValueRange(0, 1)
        grey.Build()
        for index in range(40):  # of 256
            grey.SetTableValue(index, 0, 0, 0, 0)
        actor.GetProperty().SetLookupTable(grey)
        actor.GetProperty().UseLookupTableScalarRangeOn()
    return actor


def contour_actor(surface: vtk.vtkPolyData, color, normal, centre, place: int, radius: float) -> vtk.vtkActor:
    """The outline in a slice; where outlines coincide, that of the higher place is seen."""
    plane = vtk.vtkPlane()
    plane.SetNormal(normal)
    plane.SetOrigin(centre)
    cutter = vtk.vtkCutter()
    cutter.SetCutFunction(plane)
    cutter.SetInputData(surface)
    strips = vtk.vtkStripper()
    strips.SetInputConnection(cutter.GetOutputPort())
    strips.JoinContiguousSegmentsOn()
    tube = vtk.vtkTubeFilter()  # a line of many pieces has gaps where it bends
    tube.SetInputConnection(strips.GetOutputPort())
    tube.SetNumberOfSides(8)
    tube.SetRadius(radius)
    actor = surface_actor(tube.GetOutputPort(), color)
    actor.GetProperty().LightingOff()
    actor.AddPosition(*(-(2.0 + 2 * radius * place) * np.array(normal)))  # in front of the slice
    return actor


def surface_actor(port, color) -> vtk.vtkActor:
    mapper = vtk.vtkPolyDataMapper()
    mapper.SetInputConnection(port)
    mapper.ScalarVisibilityOff()
    actor = vtk.vtkActor()
    actor.SetMapper(mapper)
    actor.GetProperty().SetColor(color)
    return actor


def title(renderer: vtk.vtkRenderer, text: str, color, at=(14, 14)) -> None:
    actor = vtk.vtkTextActor()
    actor.SetInput(text)
    actor.GetTextProperty().SetFontSize(26 * FINER)
    actor.GetTextProperty().SetColor(color)
    actor.SetPosition(at[0] * FINER, at[1] * FINER)
    renderer.AddViewProp(actor)


def legend(shown, height: float) -> vtk.vtkRenderer:
    """Colours and names in columns, below the views."""
    renderer = vtk.vtkRenderer()
    renderer.SetViewport(0, 0, 1, height)
    rows = -(-len(shown) // LEGEND_COLUMNS)
    width, line = SIZE[0] * FINER / LEGEND_COLUMNS, LEGEND_HEIGHT * FINER / (rows + 0.6)
    for number, (_, color, name) in enumerate(shown):
        column, row = divmod(number, rows)
        x, y = width * (column + 0.06), LEGEND_HEIGHT * FINER - line * (row + 1)
        side = 0.6 * line
        square = vtk.vtkPlaneSource()
        square.SetOrigin(x, y, 0)
        square.SetPoint1(x + side, y, 0)
        square.SetPoint2(x, y + side, 0)
        mapper = vtk.vtkPolyDataMapper2D()
        mapper.SetInputConnection(square.GetOutputPort())
        swatch = vtk.vtkActor2D()
        swatch.SetMapper(mapper)
        swatch.GetProperty().SetColor(color)
        renderer.AddViewProp(swatch)
        text = vtk.vtkTextActor()
        text.SetInput(name)
        text.GetTextProperty().SetFontSize(round(0.72 * line))
        text.GetTextProperty().SetColor(1, 1, 1)
        text.SetPosition(x + 1.6 * side, y)
        renderer.AddViewProp(text)
    return renderer


def render(volume, segmentation, path: Path) -> None:
    shown = surfaces(segmentation)
    boxes = np.array([surface.GetBounds() for surface, *_ in shown]).reshape(-1, 3, 2)
    bounds = np.stack([boxes[..., 0].min(axis=0), boxes[..., 1].max(axis=0)], axis=1).ravel()
    centre = bounds.reshape(3, 2).mean(axis=1)
    around = bounds + 8.0 * np.array([-1, 1] * 3)  # mm; the volume may go far beyond
    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(0)
    window.SetAlphaBitPlanes(1)
    below = LEGEND_HEIGHT if len(shown) >= MANY else 0
    window.SetSize(SIZE[0] * FINER, (SIZE[1] + below) * FINER)
    bottom = below / (SIZE[1] + below)  # of the window
    if below:
        window.AddRenderer(legend(sorted(shown, key=lambda one: one[2]), bottom))

    def placed(renderer: vtk.vtkRenderer, viewport: tuple[float, ...]) -> vtk.vtkRenderer:
        left, low, right, high = viewport
        renderer.SetViewport(left, bottom + low * (1 - bottom), right, bottom + high * (1 - bottom))
        window.AddRenderer(renderer)
        return renderer

    for text, color, axis, look, up, viewport in VIEWS:
        renderer = placed(vtk.vtkRenderer(), viewport)
        renderer.AddViewProp(slice_actor(volume, axis, centre))
        for place, (surface, segment_color, _) in enumerate(shown):
            radius = 0.0026 * np.diff(around.reshape(3, 2)).max()
            renderer.AddActor(contour_actor(surface, segment_color, tuple(-x for x in look), centre, place, radius))
        camera = renderer.GetActiveCamera()
        camera.ParallelProjectionOn()
        camera.SetFocalPoint(centre)
        camera.SetPosition(centre + 200 * np.array(look))
        camera.SetViewUp(up)
        renderer.ResetCamera(around)
        camera.SetParallelScale(0.55 * np.delete(np.diff(around.reshape(3, 2)).ravel(), axis).max())
        title(renderer, text, color)
        title(renderer, "A" if axis == 0 else "R", (1, 1, 1), at=(14, SIZE[1] // 4))  # as radiologists look at it
    renderer = placed(vtk.vtkRenderer(), (0.5, 0.5, 1.0, 1.0))
    renderer.SetBackground(0.53, 0.53, 0.72)
    renderer.SetBackground2(0.78, 0.79, 0.90)
    renderer.GradientBackgroundOn()
    renderer.SetUseDepthPeeling(True)
    for surface, color, _ in shown:
        smooth = vtk.vtkPolyDataNormals()
        smooth.SetInputData(surface)
        actor = surface_actor(smooth.GetOutputPort(), color)
        extent = np.diff(np.reshape(surface.GetBounds(), (3, 2))).prod() / np.diff(bounds.reshape(3, 2)).prod()
        if len(shown) > 2 and extent > 0.35:  # it hides all others
            actor.GetProperty().SetOpacity(0.12)
        renderer.AddActor(actor)
    renderer.AddViewProp(slice_actor(volume, 2, bounds[[0, 2, 4]], without_air=True))
    camera = renderer.GetActiveCamera()
    camera.SetFocalPoint(centre)
    camera.SetPosition(centre + np.array([120.0, 90.0, 110.0]))
    camera.SetViewUp(0, 0, 1)
    renderer.ResetCamera(around)
    camera.Zoom(1.5)
    title(renderer, "3D", (1, 1, 1))
    window.Render()

    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()
    smaller = vtk.vtkImageShrink3D()
    smaller.SetInputConnection(grab.GetOutputPort())
    smaller.SetShrinkFactors(FINER, FINER, 1)
    smaller.MeanOn()
    writer = vtk.vtkPNGWriter()
    writer.SetInputConnection(smaller.GetOutputPort())
    writer.SetFileName(str(path))
    writer.Write()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        scene = MrmlHost(Path(temporary))
        render(*segment(scene, *sys.argv[2:]), Path(sys.argv[1]))
        scene.close()
