"""What Triton's interpreter launched, and its compilation for a GPU that is not there.

`record` notes the kernel, the types and the constants of every launch. Compiling needs a process without the
interpreter: this file as a program reads launches as JSON and prints what did not compile.
"""

import importlib
import inspect
import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

TARGET = ("cuda", 90, 32)  # Hopper; a warp has 32 lanes
OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")
POINTERS = {
    "torch.float64": "*fp64",
    "torch.float32": "*fp32",
    "torch.float16": "*fp16",
    "torch.bfloat16": "*bf16",
    "torch.int64": "*i64",
    "torch.int32": "*i32",
    "torch.int16": "*i16",
    "torch.uint8": "*u8",
    "torch.bool": "*i1",
}

launched: set[str] = set()


def record() -> None:
    """Note every launch of this process from now on in `launched`, as JSON."""
    from triton.runtime.interpreter import InterpretedFunction

    run = InterpretedFunction.run

    def noting_run(self, *args, grid, warmup, **kwargs):
        parameters = {k: v for k, v in kwargs.items() if k in self.arg_names}
        arguments = inspect.getcallargs(self.fn, *args, **parameters)
        launched.add(
            json.dumps(
                {
                    "module": self.fn.__module__,
                    "kernel": self.fn.__name__,
                    "arguments": {name: _noted(value) for name, value in arguments.items()},
                    "options": {k: kwargs[k] for k in OPTIONS if k in kwargs},
                }
            )
        )
        return run(self, *args, grid=grid, warmup=warmup, **kwargs)

    InterpretedFunction.run = noting_run


def keep(folder: Path) -> None:
    """Write what this process launched into a folder that several share."""
    if launched:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{os.getpid()}.json").write_text(json.dumps(sorted(launched)))


def recall(folder: Path | None) -> set[str]:
    """What this process launched, and all that wrote into the folder."""
    files = folder.glob("*.json") if folder is not None else ()
    return launched.union(*(json.loads(file.read_text()) for file in files))


def _noted(value: Any) -> Any:
    """A tensor's pointer type; a number as it is, for it decides on its type and may become a constant."""
    assert not isinstance(value, float), "a kernel gets numbers as float32: give it a tensor of one"
    return POINTERS[str(value.dtype)] if hasattr(value, "data_ptr") else value


def compiled(launches: set[str]) -> list[str]:
    """Compile launches for the target in a fresh process: messages of those that do not compile."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment["PYTHONPATH"] = os.pathsep.join([root, os.path.join(root, "ops")])
    done = subprocess.run(
        [sys.executable, "-m", "tests.ops.launches"],
        input=json.dumps(sorted(launches)),
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _integer(value: int) -> str:
    return "i32" if -(1 << 31) <= value < 1 << 31 else "i64"


def _source(launch: dict[str, Any]):
    """What triton's launcher would compile for these arguments."""
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(launch["module"]), launch["kernel"])
    signature, constants = {}, {}
    for parameter in kernel.params:
        value = launch["arguments"][parameter.name]
        if parameter.is_constexpr or (value == 1 and not parameter.do_not_specialize):
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        else:
            signature[parameter.name] = value if isinstance(value, str) else _integer(value)
    return ASTSource(kernel, signature, constants)


def _complaint(text: str) -> str | None:
    """Why a launch does not compile, or None where it does."""
    import triton
    from triton.backends.compiler import GPUTarget

    launch = json.loads(text)
    source = _source(launch)
    try:
        assert triton.compile(source, target=GPUTarget(*TARGET), options=launch["options"]).asm["cubin"]
    except Exception as error:
        return f"{launch['kernel']} {source.signature} {source.constants}: {repr(error)[:2000]}"
    return None


def main() -> None:
    different = {}
    for text in json.load(sys.stdin):
        launch = json.loads(text)
        source = _source(launch)
        key = (launch["module"], source.name, str(source.signature), str(source.constants))
        different.setdefault(key, text)
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        complaints = list(pool.map(_complaint, different.values()))
    print(len(different), "kernels compiled for", TARGET, file=sys.stderr)
    print(json.dumps([text for text in complaints if text is not None]))


if __name__ == "__main__":
    main()
