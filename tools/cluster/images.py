"""The images of the node, from a container engine of this machine, without a registry."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tools.support.container_engine import BASE, Engine, find_engine

IMAGE = "localhost/macp-auth:cluster"
"""Built from ``deploy/docker``."""
NEXT_IMAGE = "localhost/macp-auth:cluster-next"
"""The same one; an upgrade to it replaces all pods."""
BROKEN_IMAGE = "localhost/macp-auth:cluster-broken"
"""Its container exits at once."""
SANDBOX_IMAGE = "localhost/macp-auth-sandbox:cluster"
"""What holds a pod's namespaces."""


def save_images(archive: Path) -> None:
    """Build the images and write them to ``archive``, as ``docker save`` does.

    Raises:
        ProgramMissing: no container engine runs the base image.
    """
    engine = find_engine()
    engine.build_ours(IMAGE, BASE=BASE)
    engine.run("tag", IMAGE, NEXT_IMAGE)
    _build(engine, BROKEN_IMAGE, 'ENTRYPOINT ["false"]')
    _build(engine, SANDBOX_IMAGE, 'ENTRYPOINT ["sleep", "infinity"]')
    multiple = ["--multi-image-archive"] if engine.is_podman else []
    images = [IMAGE, NEXT_IMAGE, BROKEN_IMAGE, SANDBOX_IMAGE]
    engine.run("save", *multiple, "--output", archive, *images, within=300)


def _build(engine: Engine, tag: str, *lines: str) -> None:
    with tempfile.TemporaryDirectory() as context:
        Path(context, "Dockerfile").write_text("\n".join([f"FROM {BASE}", *lines]) + "\n")
        engine.build(tag, context)
