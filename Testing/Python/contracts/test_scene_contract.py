"""The contract of what stays in scenes and files: names of tags, attributes, references, segments."""

from __future__ import annotations

from click.testing import CliRunner

pytest_plugins = ["slicer_fixtures"]


def attributes(node) -> list[str]:
    return [f"    {name}" for name in sorted(node.GetAttributeNames()) if name.startswith("USEMA.")]


def header_of(file) -> dict[str, str]:
    """The key-value pairs of an NRRD."""
    header = file.read_bytes().partition(b"\n\n")[0].decode()
    return dict(line.split(":=", 1) for line in header.splitlines() if ":=" in line)


def first_segment(keys: dict[str, str]) -> list[str]:
    """What a file tells of its first segment: its ID, its tags, and the words of two that others read."""
    tags = dict(one.split(":", 1) for one in keys["Segment0_Tags"].split("|") if one)
    ours = {name for name in tags if name.startswith("USEMA.") or name == "TerminologyEntry"}
    return [
        f"# tags of the segment {keys['Segment0_ID']}",
        *(f"    {name}" for name in sorted(ours)),
        f"TerminologyEntry = {tags['TerminologyEntry']}",
        f"USEMA.written = {tags['USEMA.written'].split()[0]} ...",
    ]


def test_a_result_in_the_scene(promised, logic, hippocampus, tmp_path):
    node = logic.segment(hippocampus, "tiny", keepProbabilities=True, overlap=0.0, device="cpu")
    lines = ["# attributes of the segmentation", *attributes(node)]
    storage = node.CreateDefaultStorageNode()
    storage.SetFileName(str(tmp_path / "saved.seg.nrrd"))
    assert storage.WriteData(node)
    lines += first_segment(header_of(tmp_path / "saved.seg.nrrd"))
    roles: list[str] = []
    node.GetNodeReferenceRoles(roles)
    lines += [f"reference {role}" for role in sorted(roles) if role.startswith("USEMA")]
    lines += [
        "# attributes of a volume of probabilities",
        *attributes(node.GetNthNodeReference("USEMA.probability", 0)),
        "# attributes of a text of margins, and its first line",
        *attributes(node.GetNodeReference("USEMA.margins")),
        "    " + node.GetNodeReference("USEMA.margins").GetText().split("\n")[0],
    ]
    promised("scene", lines)


def test_a_file_of_the_command_line(promised, tiny, data, tmp_path):
    from usema.cli import main

    volume, output = (
        data / "nnUNet_raw/Dataset004_Hippocampus/imagesTr/hippocampus_001_0000.nii.gz",
        tmp_path / "a.seg.nrrd",
    )
    command = ["segment", volume, "-o", output, "--model", tiny / "Models" / "tiny", "--device", "cpu", "--overlap", 0]
    run = CliRunner().invoke(main, list(map(str, command)))
    assert run.exit_code == 0, run.output
    keys = header_of(output)
    lines = ["# keys of the file", *(f"    {key}" for key in keys if not key.startswith("Segment1"))]
    promised("seg_nrrd", [*lines, *first_segment(keys)])


def test_the_status_of_a_cohort(promised):
    from usema.cli.cohort import _COLUMNS, DONE, FAILED, STATUS_FOLDER, TABLE

    promised("cohort", [f"{STATUS_FOLDER}/", TABLE, *_COLUMNS, f"states: {DONE}, {FAILED}"])
