"""The environment and the files that a pod's one container would get, for a service on this machine."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.deploy.helm import Manifest

Files = Mapping[str, str]
_versions = itertools.count()


def mount(folder: Path, files: Files, mode: int = 0o644) -> None:
    """Put these files into a mounted volume, at once and all together, as kubelet does."""
    folder.mkdir(exist_ok=True)
    version, pointer = folder / f"..{next(_versions)}", folder / "..data"
    for name, content in files.items():
        (version / name).parent.mkdir(parents=True, exist_ok=True)
        (version / name).write_text(content)
        (version / name).chmod(mode)
        link = folder / name.partition("/")[0]
        if not link.is_symlink():
            link.symlink_to(Path("..data", link.name))
    before = pointer.resolve()
    fresh = folder / "..data-next"
    fresh.symlink_to(version.name)
    fresh.rename(pointer)
    if before != pointer:
        shutil.rmtree(before)


class Pod:
    """What kubelet would make of a pod's specification.

    Args:
        spec: the pod's specification.
        directory: where the mounted volumes go.
        objects: the data of the Secrets and ConfigMaps of the namespace, by name.
        service_account_token: what a projected volume gives as the pod's own token.
        empty_dirs: what init containers have put into an emptyDir, by the volume's name.
    """

    def __init__(
        self,
        spec: Manifest,
        directory: Path,
        *,
        objects: Mapping[str, Files] | None = None,
        service_account_token: str = "",
        empty_dirs: Mapping[str, Files] | None = None,
    ) -> None:
        self._objects = objects or {}
        self._token = service_account_token
        self._empty_dirs = empty_dirs or {}
        self._directory = directory
        [container] = spec["containers"]
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        self._modes: dict[str, int] = {}
        self._mounts: dict[str, Path] = {}
        for each in container.get("volumeMounts", []):
            self._mounts[each["mountPath"]] = self._mount(volumes[each["name"]])
        self.env = {entry["name"]: self._repath(self._value(entry)) for entry in container.get("env", [])}
        given = [*container.get("command", []), *container.get("args", [])]
        self.command = [self._repath(argument) for argument in given]

    def update(self, volume: str, files: Files) -> None:
        """Put other files into a mounted volume, at once and all together, as kubelet does."""
        mount(self._directory / volume, files, self._modes[volume])

    def _mount(self, volume: dict[str, Any]) -> Path:
        name: str = volume["name"]
        [source] = [value for key, value in volume.items() if key != "name"]
        self._modes[name] = source.get("defaultMode", 0o644)  # what Kubernetes takes when none is given
        self.update(name, self._files(volume))
        return self._directory / name

    def _files(self, volume: dict[str, Any]) -> Files:
        if "secret" in volume:
            return self._objects[volume["secret"]["secretName"]]
        if "configMap" in volume:
            return self._objects[volume["configMap"]["name"]]
        if "projected" in volume:
            sources = volume["projected"]["sources"]
            return dict(itertools.chain.from_iterable(map(self._projected, sources)))
        return self._empty_dirs[volume["name"]]

    def _projected(self, source: dict[str, Any]) -> Iterator[tuple[str, str]]:
        if "serviceAccountToken" in source:
            yield source["serviceAccountToken"]["path"], self._token
        else:
            files = self._objects[source["configMap"]["name"]]
            for item in source["configMap"]["items"]:
                yield item["path"], files[item["key"]]

    def _value(self, entry: dict[str, Any]) -> str:
        if "value" in entry:
            value: str = entry["value"]
            return value
        reference = entry["valueFrom"]["secretKeyRef"]
        return self._objects[reference["name"]][reference["key"]]

    def _repath(self, value: str) -> str:
        option, equals, path_or_value = value.rpartition("=")
        for path, folder in self._mounts.items():
            if path_or_value == path or path_or_value.startswith(f"{path}/"):
                return f"{option}{equals}{folder}{path_or_value.removeprefix(path)}"
        return value
