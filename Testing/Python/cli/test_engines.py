"""Engines beside `local`: what they have in common here; Ray's and Slurm's own where their libraries are installed."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from cli_cases import said, usema
from test_cohort import table
from usema.cli import ray_engine, remote
from usema.cli.case_run import Settings
from usema.cli.cases import Case, plan_cases, targets
from usema.cli.interrupt import Stop
from usema.volumes.volume import load_volume


@pytest.fixture
def source(tmp_path, small_volume) -> Path:
    """Three volumes and one that is none."""
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        shutil.copy(small_volume, tmp_path / "in" / f"{name}.nii.gz")
    (tmp_path / "in" / "broken.nii").write_text("no volume")
    return tmp_path / "in"


@pytest.fixture
def job(source, model) -> remote.Job:
    settings = Settings("cpu", None, False, False, False, measured=True)
    return remote.Job(model, source.parent / "out", settings)


def cases_of(source: Path):
    return plan_cases([source], (), targets(f"{source.parent}/out/", None, None))[0]


def test_a_runner_does_cases_with_one_model_and_reads_the_next_meanwhile(source, job, monkeypatch):
    runner, cases, read = remote.CaseRunner(job), cases_of(source), []
    monkeypatch.setattr("usema.cli.work.read_case", reading(read))
    for case, then in remote.pairs(cases):
        runner.run(case, then)
        if then and case.name != "broken.nii":
            assert then.name in read  # before anybody asked for it
    assert read == [case.name for case in cases]
    predictor = runner._engine.predictor
    told = remote.Told(job.cohort(), lambda line: None)
    for case in cases:
        told.tell(case, len(cases))
    assert told.failed == 1
    assert runner._engine.predictor is predictor
    job.cohort().write_table()
    rows = table(source)
    assert {name: row["state"] for name, row in rows.items()} == {
        **dict.fromkeys(("a.nii.gz", "b.nii.gz", "c.nii.gz"), "done"),
        "broken.nii": "failed",
    }
    assert float(rows["a.nii.gz"]["Anterior hippocampus longest diameter / mm"]) > 0


def reading(read: list[str]):
    from usema.cli.case_run import read_case

    def watched(case, *rest):
        read.append(case.name)
        return read_case(case, *rest)

    return watched


def test_a_case_whose_process_is_lost_is_told_as_failed_but_not_one_that_was_done(source, job):
    first, second = cases_of(source)[:2]
    first, second = sorted((first, second), key=lambda case: case.name == "broken.nii")
    remote.CaseRunner(job).run(first)
    said_lines: list[str] = []
    told = remote.Told(job.cohort(), said_lines.append)
    told.tell(first, 2, lost="Its process ended.")
    assert told.failed == 0
    told.tell(second, 2, lost="Its process ended.")
    assert told.failed == 1
    status = job.cohort().told(second)
    assert (status["state"], "Its process ended." in status["error"]) == ("failed", True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ray-address", "ray://x:1"), "--ray-address is of no use to the engine local"),
        (("--workers", "2"), "--workers is of no use to the engine local"),
        (("--slurm", "slurm_partition=gpu"), "--slurm is of no use to the engine local"),
        (("--chunk", "3"), "--chunk is of no use to the engine local"),
        (("--engine", "slurm", "--slurm", "gpu"), "--slurm gpu is no NAME=VALUE"),
    ],
)
def test_options_of_another_engine_are_refused(source, model, options, words):
    result = usema("segment", source, "-o", f"{source.parent}/out/", "--model", model, *options)
    assert result.exit_code == 1
    assert words in said(result)
    assert not (source.parent / "out").exists()


@pytest.mark.parametrize("options", [("--part", "1/1"), ("--engine", "slurm", "--slurm", "cluster=local")])
def test_results_of_parts_and_of_other_engines_go_into_a_folder(source, model, options):
    file = source.parent / "r.nii.gz"
    result = usema("segment", source / "a.nii.gz", "-o", file, "--model", model, *options)
    assert result.exit_code == 2
    assert "--part and --engine are for results in a folder" in said(result)
    assert not file.exists()


def test_a_case_of_other_settings_that_is_refused_elsewhere_is_told_with_its_reason(source, job):
    case = cases_of(source)[0]
    remote.CaseRunner(job).run(case)
    other = remote.Job(job.model, job.folder, replace(job.settings, overlap=0.25))
    remote.CaseRunner(other).run(case)
    told = remote.Told(other.cohort(), lambda line: None)
    told.tell(case, 1)
    assert told.failed == 1
    assert "exists already" in other.cohort().error(case)
    assert job.cohort().left_to_do([case]) == []


@pytest.mark.parametrize(("engine", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_library_is_named_with_its_extra(source, model, monkeypatch, engine, package):
    monkeypatch.setitem(sys.modules, package, None)
    result = usema("segment", source, "-o", f"{source.parent}/out/", "--model", model, "--engine", engine)
    assert result.exit_code == 1
    assert f"The engine '{engine}' needs the package {package}" in said(result)
    assert f"pip install 'usema[{engine}]'" in said(result)


def test_without_slurm_on_this_computer_it_says_where_to_go(source, model, monkeypatch):
    pytest.importorskip("submitit", reason="the extra `slurm` is not installed")
    monkeypatch.setenv("PATH", str(source))
    result = usema("segment", source, "-o", f"{source.parent}/out/", "--model", model, "--engine", "slurm")
    assert "the command sbatch is not here" in said(result)


@dataclass(eq=False)
class Call:
    actor: object
    case: Case
    then: Case | None


class Actors:
    """Ray's outside as the adapter uses it; the actors work in this process, and one case ends every actor."""

    class exceptions:
        class RayActorError(Exception): ...

        class RayTaskError(Exception): ...

    def __init__(self, deadly: str):
        self.deadly, self.calls, self.made = deadly, [], 0

    def cluster_resources(self):
        return {"CPU": 4.0}

    def remote(self, **options):
        assert (options["max_restarts"], options["max_task_retries"], options["num_cpus"]) == (2, 2, 2)
        return self._kind

    def _kind(self, kind):
        def make(job):
            self.made += 1
            actor = kind(job)
            return SimpleNamespace(run=SimpleNamespace(remote=lambda case, then: self._call(actor, case, then)))

        return SimpleNamespace(remote=make)

    def _call(self, actor, case, then):
        self.calls.append((case.name, then and then.name))
        return Call(actor, case, then)

    def wait(self, references, timeout):
        return references[:1], references[1:]

    def get(self, reference):
        if reference.case.name == self.deadly:
            raise self.exceptions.RayActorError
        reference.actor.run(reference.case, reference.then)


def test_a_case_that_ends_its_actors_is_told_as_failed_and_another_actor_does_the_rest(source, job):
    actors, lines = Actors(deadly="b.nii.gz"), []
    told = remote.Told(job.cohort(), lines.append)
    cases = cases_of(source)
    assert ray_engine._Cluster(actors, job, None).do(cases, Stop(), told) == 2
    assert sorted(name for name, _ in actors.calls) == sorted(case.name for case in cases)
    assert actors.made == 3  # one for each two cores, and one in the place of the lost one
    states = {case.name: job.cohort().told(case) for case in cases}
    assert {name: status["state"] for name, status in states.items()} == {
        **dict.fromkeys(("a.nii.gz", "c.nii.gz"), "done"),
        **dict.fromkeys(("b.nii.gz", "broken.nii"), "failed"),
    }
    assert "Its process ended 3 times" in states["b.nii.gz"]["error"]
    assert "cannot be read" in states["broken.nii"]["error"]


@pytest.mark.slow
def test_slurms_jobs_do_chunks_and_a_lost_job_is_told(source, model):
    """submitit's own executor for one computer: real processes, real files of jobs."""
    pytest.importorskip("submitit", reason="the extra `slurm` is not installed")
    command = ("segment", source, "-o", f"{source.parent}/out/", "--model", model, "--engine", "slurm")
    command = (*command, "--slurm", "cluster=local", "--chunk", "2", "--device", "cpu")
    result = usema(*command)
    assert result.exit_code == 1
    assert "2 jobs of up to 2 cases" in said(result)
    assert "1 of 4 failed" in said(result), result.output
    rows = table(source)
    assert [name for name, row in rows.items() if row["state"] == "done"] == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    assert "cannot be read" in rows["broken.nii"]["error"]
    assert load_volume(source.parent / "out" / "c.nii.gz").array.any()
    assert "3 of 4 were done before" in said(usema(*command[:-6], "--engine", "local", "--device", "cpu"))


def test_a_parameter_that_submitit_does_not_know_is_named(source, model):
    pytest.importorskip("submitit", reason="the extra `slurm` is not installed")
    command = ("segment", source, "-o", f"{source.parent}/out/", "--model", model, "--engine", "slurm")
    result = usema(*command, "--slurm", "cluster=local", "--slurm", "partittion=gpu")
    assert result.exit_code == 1
    assert "partittion" in said(result)


def test_statuses_are_the_same_from_whatever_folder_the_command_is_given(source, model, monkeypatch):
    monkeypatch.chdir(source.parent)
    assert usema("segment", "in", "-o", "out/", "--model", model).exit_code == 1
    for path in (source.parent / "out" / "status").iterdir():
        assert json.loads(path.read_text("utf-8"))["case"]
    job = remote.Job(model, source.parent / "out", Settings("auto", None, False, False, False, measured=True))
    assert [case.name for case in job.cohort().left_to_do(cases_of(source))] == ["broken.nii"]
