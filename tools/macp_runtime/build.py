"""``make runtime``: builds the real MACP runtime for the tests, once, outside of the working tree."""

from __future__ import annotations

import shutil
import subprocess
import sys

from tools.support.macp_runtime import VERSION, build_folder


def main() -> None:
    folder = build_folder()
    program = folder / "bin" / "macp-runtime"
    if program.is_file():
        print(f"{program} is there")
        return
    if not (shutil.which("cargo") and shutil.which("protoc")):
        sys.exit("make runtime needs cargo, and protoc of Debian's package protobuf-compiler; install both")
    # Not with --locked: the lock file of this release names a crate that registries no longer serve.
    # The program appears in its place when it is complete, so a build that is cut leaves none.
    options = ["--version", VERSION, "--debug", "--bin", "macp-runtime", "--root", str(folder)]
    subprocess.run(["nice", "cargo", "install", "macp-runtime", *options], check=True)


if __name__ == "__main__":
    main()
