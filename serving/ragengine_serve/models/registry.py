"""The models of a server by name."""

import contextlib
from pathlib import Path
from typing import Any

from ragengine.errors import RagEngineError
from ragengine.messages import short_repr
from ragengine_serve.configuration.settings import Settings
from ragengine_serve.errors import ApiError
from ragengine_serve.models.served_model import OpenEngine, ServedModel


class ModelRegistry:
    """The models of a server.  Empty until :meth:`load`, which a thread calls while the server listens."""

    def __init__(self, settings: Settings, open_engine: OpenEngine | None = None) -> None:
        self._settings, self._open_engine = settings, open_engine
        self._models: dict[str, ServedModel] = {}
        self.loaded = False

    def load(self) -> None:
        """Load all models, in their order; the first is the one of a request that names none.

        Raises:
            RagEngineError: one of them cannot be used.
        """
        with contextlib.ExitStack() as undo:
            for folders in self._settings.models:
                model = ServedModel.load(folders, self._settings, self._open_engine)
                undo.callback(model.engine.close)
                self._models[folders.name] = model
            undo.pop_all()
        self.loaded = True

    def __iter__(self) -> Any:
        return iter([*self._models.values()])  # while they load, too

    def get(self, name: str | None) -> ServedModel:
        """The model of that name, the first for None.

        Raises:
            ApiError: 404, there is no such model.
        """
        if name is None:
            return next(iter(self._models.values()))
        if name not in self._models:
            names = ", ".join(self._models)
            raise ApiError(
                404, "unknown_model", f"There is no model {short_repr(name)}; there is {names}.", "model"
            )
        return self._models[name]

    def swap_index(self, name: str | None, path: str) -> ServedModel:
        """Swap the index of a model, as the administrator asks.

        ``path`` has been resolved by :meth:`index_path`.

        Raises:
            ApiError: 400, the index cannot be used; nothing has changed.
        """
        model = self.get(name)
        try:
            model.swap_index(path, self._settings.verify)
        except RagEngineError as error:
            raise ApiError(400, "invalid_index", str(error), "path") from error
        return model

    def index_path(self, path: str) -> str:
        """An index folder below ``index_root``, by its path in there.

        Raises:
            ApiError: 400, the path leads elsewhere.
        """
        root = self._settings.index_root
        assert root is not None  # /admin is off without
        try:
            root = root.resolve(strict=True)
            found = (root / path).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            found = None
        if found is None or not found.is_relative_to(root) or found == root:
            raise ApiError(
                400,
                "invalid_index",
                f"The path {short_repr(path)} is no folder below the server's index root; give one that is.",
                "path",
            )
        return str(found)

    def close(self) -> None:
        """Close the engines; running calls finish."""
        for model in self._models.values():
            model.engine.close()


def loaded_from(settings: Settings, indexes: dict[str, Path]) -> Settings:
    """The settings with the indexes that were swapped in since, for a worker that starts later."""
    import dataclasses

    models = tuple(
        dataclasses.replace(model, index=indexes.get(model.name, model.index)) for model in settings.models
    )
    return dataclasses.replace(settings, models=models)
