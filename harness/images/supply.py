"""All images of a run, each as soon as it is there.

What is in the engine or can be pulled is had at once and independently; what is left is built
from packages in one go, because the builds share their parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from harness import paths, process
from harness.engine import Engine
from harness.events import Emit, ImageObtained, Progress
from harness.images import packages, sources

STAGE = "images"


class Supply:
    """The images `names`, on their way from the moment this is made."""

    def __init__(
        self,
        names: Sequence[packages.ImageName],
        engine: Engine,
        pool: ThreadPoolExecutor,
        emit: Emit,
        cancellation: process.Cancellation,
    ) -> None:
        self._engine, self._emit, self._cancellation = engine, emit, cancellation
        self._attempts: dict[packages.ImageName, Future[sources.Image | None]] = {
            name: pool.submit(sources.find_or_pull, name, engine, self._report, cancellation)
            for name in names
        }
        self._built = pool.submit(self._build_missing)

    def get(self, name: packages.ImageName) -> sources.Image:
        """Wait for an image.

        Raises:
            EnvironmentFailure: no source has it; names each and what it said.
        """
        image = self._attempts[name].result()
        if image is None:
            self._built.result()
            image = sources.Image(name, packages.tag(name), "packages")
        self._emit(ImageObtained(image.name, image.reference, image.source))
        return image

    def _build_missing(self) -> None:
        missing = [name for name, attempt in self._attempts.items() if attempt.result() is None]
        if not missing:
            return
        sources.require_space(self._engine, sources.BUILD_BYTES, "building images from packages")
        packages.build(
            missing,
            client=self._engine.client,
            cache=paths.cache(),
            report=self._report,
            cancellation=self._cancellation,
        )

    def _report(self, text: str) -> None:
        self._emit(Progress(STAGE, text))
