"""Compile the inference kernels to PTX: `python -m usema.sema.aot.build`. Needs Triton, but no GPU.

PTX is text, the same for every operating system. It is written for PTX ISA 8.0, which drivers of CUDA 12.0 and newer
accept, without line tables, and goes into version control with manifest.json beside it. `--report` prints what the
assembler makes of the kernels on each generation of GPUs instead of building.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..launch import window_constants
from . import FOLDER, manifest
from .variants import LAYERS, MULTIPLES_OF_16, TYPES, Variant, properties, variants

PTX_VERSION = 80
GENERATIONS = (75, 80, 86, 89, 90, 100, 120)
SOURCE = FOLDER.parent / "triton_kernels.py"


def source_hash() -> str:
    """SHA-256 of the kernels' source, whatever the line endings that a checkout has given it."""
    return hashlib.sha256(SOURCE.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def compile_kernel(variant: Variant, **options: Any):
    """Triton's compiled kernel, for the variant's architecture."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from .. import triton_kernels

    triton.knobs.compilation.disable_line_info = True
    function = getattr(triton_kernels, variant.kernel)
    signature = {
        name: "constexpr" if name in variant.constants else variant.type_of(name) for name in function.arg_names
    }
    # What the launcher sees to, and Triton finds out by itself when it launches: 16 bytes can be read at a time.
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, (name, kind) in enumerate(signature.items())
        if kind.startswith("*") or name in MULTIPLES_OF_16
    }
    source = ASTSource(fn=function, signature=signature, constexprs=variant.constants, attrs=aligned)
    target = GPUTarget("cuda", variant.architecture, 32)
    return triton.compile(source, target=target, options={**variant.options, **options}), signature


def build(folder: Path = FOLDER) -> dict[str, Any]:
    """Compile every variant into ``folder``, and return the manifest that was written there."""
    import triton

    for old in folder.glob("*.ptx"):
        old.unlink()
    kernels = []
    for variant in variants():
        compiled, signature = compile_kernel(variant, ptx_version=PTX_VERSION)
        metadata = compiled.metadata
        if metadata.global_scratch_size or metadata.profile_scratch_size:
            raise RuntimeError(f"{variant.name} needs scratch memory, which the loader does not give it")
        file = f"{variant.name}.ptx"
        (folder / file).write_text(strip(compiled.asm["ptx"]), encoding="ascii", newline="\n")
        kernels.append(
            {
                "file": file,
                "kernel": variant.kernel,
                "architecture": variant.architecture,
                "dtype": TYPES[variant.dtype][1:],
                "constants": variant.constants,
                "num_warps": metadata.num_warps,
                "shared": metadata.shared,
                "parameters": [[name, kind] for name, kind in signature.items() if kind != "constexpr"],
            }
        )
    written = {
        "ptx_version": f"{PTX_VERSION // 10}.{PTX_VERSION % 10}",
        "triton": triton.__version__,
        "source_sha256": source_hash(),
        "kernels": kernels,
    }
    # One line a kernel, so that a change can be read.
    table = ",\n".join(map(json.dumps, kernels))
    text = json.dumps({**written, "kernels": []}).replace("[]", f"[\n{table}\n]")
    (folder / "manifest.json").write_text(f"{text}\n", encoding="ascii", newline="\n")
    return written


def strip(ptx: str) -> str:
    """PTX without comments, indentation and empty lines."""
    lines = (re.sub(r"\s*//.*", "", line).strip() for line in ptx.splitlines())
    return "".join(f"{line}\n" for line in lines if line)


def assemble(ptx: str, architecture: int) -> dict[str, int]:
    """What the assembler makes of PTX on one generation: registers a thread, bytes of spill stores and loads.

    Raises:
        RuntimeError: the assembler refuses.
    """
    from triton import knobs

    tool = knobs.nvidia.ptxas_blackwell if architecture >= 100 else knobs.nvidia.ptxas  # as Triton itself does
    # Code that Triton makes for Hopper and newer uses what only that one generation has; PTX says so itself.
    target = re.search(r"\.target sm_(\w+)", ptx)[1]
    name = target if target.endswith("a") else str(architecture)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx, encoding="ascii")
        command = [tool.path, "-v", f"--gpu-name=sm_{name}", str(source), "-o", str(Path(folder, "kernel.cubin"))]
        run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(run.stderr)
    patterns = {
        "registers": r"Used (\d+) registers",
        "spill_stores": r"(\d+) bytes spill stores",
        "spill_loads": r"(\d+) bytes spill loads",
    }
    return {what: int(re.search(pattern, run.stderr)[1]) for what, pattern in patterns.items()}


def report() -> Iterator[str]:
    """Lines of a Markdown table: registers, and bytes spilled where there are any, on each generation.

    First the committed PTX, as the driver translates it; then what Triton makes of each kernel for that generation.
    """
    yield f"| kernel | {' | '.join(f'sm_{generation}' for generation in GENERATIONS)} |"
    yield f"|---|{'---|' * len(GENERATIONS)}"
    for entry in manifest()["kernels"]:
        ptx = (FOLDER / entry["file"]).read_text(encoding="ascii")
        fitting = [generation if generation >= entry["architecture"] else None for generation in GENERATIONS]
        yield _line(entry["file"], [generation and assemble(ptx, generation) for generation in fitting])
    layers = {len(window): (window, head_dim) for window, head_dim in LAYERS}
    for kernel, axes in (
        ("window_attention", 2),
        ("window_attention_backward", 2),
        ("window_attention", 3),
        ("window_attention_backward_q", 3),
        ("window_attention_backward_kv", 3),
    ):
        (window, head_dim), found = layers[axes], []
        for generation in GENERATIONS[1:]:
            sizes = window_constants(kernel, window, head_dim, torch.float16, properties(generation), True, True)
            compiled, _ = compile_kernel(Variant(kernel, generation, torch.float16, *sizes))
            found.append(assemble(compiled.asm["ptx"], generation))
        yield _line(f"{kernel}, {axes}D, float16, by Triton", [None, *found])


def _line(name: str, found: list[dict[str, int] | None]) -> str:
    return f"| {name} | {' | '.join(_cell(each) if each else '' for each in found)} |"


def _cell(found: dict[str, int]) -> str:
    spilled = found["spill_stores"] + found["spill_loads"]
    return f"{found['registers']}" + (f" ({spilled} spilled)" if spilled else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true", help="print registers and spills instead of building")
    if parser.parse_args().report:
        for line in report():
            print(line, flush=True)
        return
    for entry in build()["kernels"]:
        print(f"{entry['file']}: {(FOLDER / entry['file']).stat().st_size} bytes")


if __name__ == "__main__":
    main()
