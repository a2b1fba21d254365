"""`tidegate.v1.Admin`: labels of a running server, for whoever may give commands (see `repository_control`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tidegate.cloud.core import Caller
from tidegate.cloud.repository import Repository
from tidegate.cloud.repository_control import RepositoryControl
from tidegate.cloud.versions import LabelMove
from tidegate.errors import NotFoundError
from tidegate.v1 import admin_pb2


class LabelControl:
    """One method per method of the service."""

    def __init__(self, repository: Repository, control: RepositoryControl) -> None:
        """Join the parts.

        Args:
            repository: whose labels are moved.
            control: lets commands pass, or not.
        """
        self._repository = repository
        self._control = control

    @property
    def methods(self) -> Mapping[str, Callable[[Any, Caller], Any]]:
        """By name."""
        return {
            "ListLabels": self._list,
            "SetLabel": self._set,
            "RollBackLabel": self._roll_back,
            "RemoveLabel": self._remove,
        }

    def _list(self, request: Any, caller: Caller) -> Any:
        name: str = request.model_name
        response = admin_pb2.ListLabelsResponse()

        def command() -> None:
            labels = self._repository.labels_by_model
            versions, history = self._repository.versions(name), labels.history(name)
            if not versions and not history:
                raise NotFoundError(f"there is no model {name!r}", fix="list the repository")
            response.labels.update(labels.of(name))
            response.versions.extend(versions)
            response.history.extend(_message(move) for move in history)

        self._control.command("ListLabels", name, caller, command)
        return response

    def _set(self, request: Any, caller: Caller) -> Any:
        def command() -> LabelMove:
            return self._repository.set_label(request.model_name, request.label, request.version)

        return self._moved("SetLabel", request, caller, command)

    def _roll_back(self, request: Any, caller: Caller) -> Any:
        def command() -> LabelMove:
            return self._repository.roll_back(request.model_name, request.label)

        return self._moved("RollBackLabel", request, caller, command)

    def _remove(self, request: Any, caller: Caller) -> Any:
        def command() -> LabelMove:
            return self._repository.remove_label(request.model_name, request.label)

        return self._moved("RemoveLabel", request, caller, command)

    def _moved(self, action: str, request: Any, caller: Caller, command: Callable[[], LabelMove]) -> Any:
        moves: list[LabelMove] = []
        self._control.command(action, request.model_name, caller, lambda: moves.append(command()))
        return _message(moves[0])


def _message(move: LabelMove) -> Any:
    return admin_pb2.LabelMove(
        model_name=move.model, label=move.label, version=move.version, before=move.before, time_s=move.time_s
    )
