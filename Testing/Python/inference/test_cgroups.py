"""How much memory control groups leave, read from made-up trees of both versions."""

from __future__ import annotations

import pytest
from usema.inference import memory
from usema.inference.cgroups import free_in_cgroups

GIB = 2**30


@pytest.fixture
def tree(tmp_path):
    def write(**files: str):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def make(groups: str, folders: dict[str, dict[str, str]]):
        write(proc__self__cgroup=groups)
        for folder, files in folders.items():
            for name, text in files.items():
                path = tmp_path / "sys/fs/cgroup" / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        return tmp_path

    return make


def second(limit, current, droppable=0) -> dict[str, str]:
    return {
        "memory.max": f"{limit}\n",
        "memory.current": f"{current}\n",
        "memory.stat": f"anon 1\nactive_file 77\ninactive_file {droppable}\n",
    }


def first(limit, usage, droppable=0) -> dict[str, str]:
    return {
        "memory.limit_in_bytes": f"{limit}\n",
        "memory.usage_in_bytes": f"{usage}\n",
        "memory.stat": f"inactive_file 5\ntotal_inactive_file {droppable}\n",
    }


def test_version_2_counts_what_is_used_but_not_what_can_be_dropped(tree):
    root = tree("0::/job\n", {"job": second(8 * GIB, 3 * GIB, GIB)})
    assert free_in_cgroups(root) == 6 * GIB


def test_the_tightest_group_on_the_way_up_decides(tree):
    root = tree("0::/slurm/job/step\n", {
        "slurm": second("max", 90 * GIB), "slurm/job": second(4 * GIB, 3 * GIB), "slurm/job/step": second(8 * GIB, GIB),
    })  # fmt: skip
    assert free_in_cgroups(root) == GIB


def test_in_a_container_the_path_may_be_the_hosts(tree):
    root = tree("0::/system.slice/docker-12ab.scope\n", {"": second(2 * GIB, GIB)})
    assert free_in_cgroups(root) == GIB


def test_version_1_has_its_own_names(tree):
    groups = "12:cpu,cpuacct:/job\n7:memory:/job\n1:name=systemd:/x\n"
    root = tree(groups, {"memory/job": first(8 * GIB, 3 * GIB, GIB), "memory": first(9223372036854771712, 50 * GIB)})
    assert free_in_cgroups(root) == 6 * GIB


@pytest.mark.parametrize(
    ("groups", "folders"),
    [
        ("0::/job\n", {"job": second("max", 3 * GIB)}),
        ("7:memory:/job\n", {"memory/job": first(9223372036854771712, GIB)}),
        ("0::/job\n", {}),
        ("", {}),
        ("0::/../..\nrubbish\n", {"": {"memory.max": "many\n", "memory.current": "\n"}}),
    ],
)
def test_without_a_limit_there_is_none(groups, folders, tree):
    assert free_in_cgroups(tree(groups, folders)) is None


def test_a_group_that_uses_more_than_its_limit_has_nothing_left(tree):
    assert free_in_cgroups(tree("0::/job\n", {"job": second(GIB, 2 * GIB)})) == 0


@pytest.mark.skipif(not memory.sys.platform.startswith("linux"), reason="control groups are Linux'")
def test_free_memory_is_no_more_than_the_group_has(monkeypatch):
    whole = memory.free_memory()
    monkeypatch.setattr(memory, "free_in_cgroups", lambda: 12345)
    assert memory.free_memory() == 12345
    monkeypatch.setattr(memory, "free_in_cgroups", lambda: None)
    assert memory.free_memory() == pytest.approx(whole, rel=0.5)
