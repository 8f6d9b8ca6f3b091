"""A picture of a model's result in slice and 3D views, from a real MRML scene: the bundled model's on the sample, or
that of a model which is on this computer on another volume.

    VTK_DEFAULT_OPENGL_WINDOW=vtkEGLRenderWindow python Testing/Host/photograph_result.py FILE.png [VOLUME MODEL]

Volume, segmentation and closed surfaces are the scene's own nodes, made by the panel's logic and its worker; only the
views are drawn here, because the application's need Qt.
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

# 3D Slicer's own colours of the slice views, where each looks from and which way is up (RAS), and where it stands.
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
    logic = USEMASegmentationLogic()
    try:
        segmentation = logic.segment(volume, model, show3D=True)
    finally:
        logic.shutdown()
    segmentation.CreateClosedSurfaceRepresentation()
    return volume, segmentation


def surfaces(segmentation) -> list[tuple[vtk.vtkPolyData, tuple[float, float, float]]]:
    """Each segment's closed surface, in RAS, and its colour."""
    found = []
    for segment_id in segmentation.GetSegmentation().GetSegmentIDs():
        surface = vtk.vtkPolyData()
        segmentation.GetClosedSurfaceRepresentation(segment_id, surface)
        found.append((surface, segmentation.GetSegmentation().GetSegment(segment_id).GetColor()))
    return found


def slice_actor(volume, axis: int, centre: np.ndarray) -> vtk.vtkImageSlice:
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
    actor.GetProperty().SetColorWindow((high - low) * 0.6)
    actor.GetProperty().SetColorLevel(low + (high - low) * 0.33)
    return actor


def contour_actor(surface: vtk.vtkPolyData, color, normal, centre) -> vtk.vtkActor:
    plane = vtk.vtkPlane()
    plane.SetNormal(normal)
    plane.SetOrigin(centre)
    cutter = vtk.vtkCutter()
    cutter.SetCutFunction(plane)
    cutter.SetInputData(surface)
    actor = surface_actor(cutter.GetOutputPort(), color)
    actor.GetProperty().SetLineWidth(5)
    actor.GetProperty().LightingOff()
    actor.AddPosition(*(-2.0 * np.array(normal)))  # in front of the slice
    return actor


def surface_actor(port, color) -> vtk.vtkActor:
    mapper = vtk.vtkPolyDataMapper()
    mapper.SetInputConnection(port)
    mapper.ScalarVisibilityOff()
    actor = vtk.vtkActor()
    actor.SetMapper(mapper)
    actor.GetProperty().SetColor(color)
    return actor


def title(renderer: vtk.vtkRenderer, text: str, color) -> None:
    actor = vtk.vtkTextActor()
    actor.SetInput(text)
    actor.GetTextProperty().SetFontSize(26)
    actor.GetTextProperty().SetColor(color)
    actor.SetPosition(14, 14)
    renderer.AddViewProp(actor)


def render(volume, segmentation, path: Path) -> None:
    shown = surfaces(segmentation)
    boxes = np.array([surface.GetBounds() for surface, _ in shown]).reshape(-1, 3, 2)
    bounds = np.stack([boxes[..., 0].min(axis=0), boxes[..., 1].max(axis=0)], axis=1).ravel()
    centre = bounds.reshape(3, 2).mean(axis=1)
    around = bounds + 8.0 * np.array([-1, 1] * 3)  # mm; the volume may go far beyond
    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(0)
    window.SetAlphaBitPlanes(1)
    window.SetSize(1280, 1120)
    for text, color, axis, look, up, viewport in VIEWS:
        renderer = vtk.vtkRenderer()
        renderer.SetViewport(viewport)
        renderer.AddViewProp(slice_actor(volume, axis, centre))
        for surface, segment_color in shown:
            renderer.AddActor(contour_actor(surface, segment_color, tuple(-x for x in look), centre))
        camera = renderer.GetActiveCamera()
        camera.ParallelProjectionOn()
        camera.SetFocalPoint(centre)
        camera.SetPosition(centre + 200 * np.array(look))
        camera.SetViewUp(up)
        renderer.ResetCamera(around)
        camera.SetParallelScale(0.55 * np.delete(np.diff(around.reshape(3, 2)).ravel(), axis).max())
        title(renderer, text, color)
        window.AddRenderer(renderer)
    renderer = vtk.vtkRenderer()
    renderer.SetViewport(0.5, 0.5, 1.0, 1.0)
    renderer.SetBackground(0.53, 0.53, 0.72)
    renderer.SetBackground2(0.78, 0.79, 0.90)
    renderer.GradientBackgroundOn()
    renderer.SetUseDepthPeeling(True)
    for surface, color in shown:
        smooth = vtk.vtkPolyDataNormals()
        smooth.SetInputData(surface)
        actor = surface_actor(smooth.GetOutputPort(), color)
        extent = np.diff(np.reshape(surface.GetBounds(), (3, 2))).prod() / np.diff(bounds.reshape(3, 2)).prod()
        if len(shown) > 2 and extent > 0.35:  # it hides all others
            actor.GetProperty().SetOpacity(0.12)
        renderer.AddActor(actor)
    renderer.AddViewProp(slice_actor(volume, 2, bounds[[0, 2, 4]]))
    camera = renderer.GetActiveCamera()
    camera.SetFocalPoint(centre)
    camera.SetPosition(centre + np.array([120.0, 90.0, 110.0]))
    camera.SetViewUp(0, 0, 1)
    renderer.ResetCamera(around)
    camera.Zoom(1.5)
    title(renderer, "3D", (1, 1, 1))
    window.AddRenderer(renderer)
    window.Render()

    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()
    writer = vtk.vtkPNGWriter()
    writer.SetInputConnection(grab.GetOutputPort())
    writer.SetFileName(str(path))
    writer.Write()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        scene = MrmlHost(Path(temporary))
        render(*segment(scene, *sys.argv[2:]), Path(sys.argv[1]))
        scene.close()
