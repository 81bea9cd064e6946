"""What accounts may do in MLflow beyond what its basic-auth app distinguishes: its `authorization_function`.

MLflow asks the same permission (EDIT on the registered model) of whoever creates a version and of whoever sets an
alias, lets everybody create models and experiments, and lets whoever may log a run overwrite the files of any model of
that experiment. With the three rules here a trainer registers and does not promote:

1. An alias is set, and a registered model changed or renamed, by those with MANAGE on that model, as MLflow itself asks
   of those who delete an alias. The alias `challenger` is free to those who may register.
2. A registered model is created by those with MANAGE on all models, an experiment by those with MANAGE on all of them:
   whoever creates something gets MANAGE on it.
3. The files of a finished model (status READY) are not written again, and it stays finished.

An administrator is asked nothing. The permissions themselves are MLflow's; see docs/decisions/access.md.
"""

import posixpath
import re
from typing import Any

from flask import Response, g, request
from mlflow.exceptions import MlflowException
from mlflow.protos.model_registry_pb2 import (
    DeleteRegisteredModelTag,
    RenameRegisteredModel,
    SetRegisteredModelAlias,
    SetRegisteredModelTag,
    UpdateRegisteredModel,
)
from mlflow.protos.service_pb2 import LOGGED_MODEL_READY, CreatePresignedUploadUrl, FinalizeLoggedModel
from mlflow.server import auth, handlers
from mlflow.server.auth.requirements import Requirement
from mlflow.utils.uri import validate_path_is_safe
from werkzeug.datastructures import Authorization

_READY = int(LOGGED_MODEL_READY)
_ROUTE = re.compile(r".*/(?:ajax-)?api/\d+\.\d+/(?:preview/)?(mlflow|mlflow-artifacts)/(.+)", re.DOTALL)
_FREE_ALIAS = "challenger"
_CREATED = {"registered-models/create": "registered_model", "experiments/create": "experiment"}
_CHANGED = {
    ("POST", "registered-models/alias"): SetRegisteredModelAlias,
    ("POST", "registered-models/rename"): RenameRegisteredModel,
    ("PATCH", "registered-models/update"): UpdateRegisteredModel,
    ("POST", "registered-models/set-tag"): SetRegisteredModelTag,
    ("DELETE", "registered-models/delete-tag"): DeleteRegisteredModelTag,
}
_WRITES = {"PUT", "POST", "PATCH", "DELETE"}
_WRITTEN_FILE = re.compile(r"(?:artifacts|mpu/(?:create|complete))/(.+)", re.DOTALL)
_FILE_OF_MODEL = re.compile(r"(?:workspaces/[^/]+/)?\d+/models/([^/]+)/.*", re.DOTALL)
_FINALIZED = re.compile(r"logged-models/[^/]+")


def authenticate() -> Authorization | Response:
    """The account that a request comes from, or the answer that refuses it."""
    if request.authorization is None or request.authorization.type != "basic":
        return _not_authenticated()  # a token, for one, MLflow itself treats as an error of its own
    answer: Authorization | Response = auth.authenticate_request_basic_auth()
    if isinstance(answer, Response) or g.get("morphad_asked"):
        return answer
    g.morphad_asked = True  # what follows asks MLflow, which asks who it is, which leads here
    username = str(answer.username)
    if auth.store.get_user(username).is_admin or _allowed(username):
        return answer
    return _forbidden()


def _allowed(username: str) -> bool:
    route = _ROUTE.fullmatch(request.path)
    if request.method not in _WRITES or route is None:
        return True
    family, call = route.groups()
    if family == "mlflow-artifacts":
        return not _is_finished(_model_of_file(call))
    if call in _CREATED:
        return _manages(username, _CREATED[call], "*")
    if message := _CHANGED.get((request.method, call)):
        asked = _asked(message())
        # Of the free alias MLflow's own rule holds: EDIT on the model.
        return getattr(asked, "alias", "") == _FREE_ALIAS or _manages(username, "registered_model", asked.name)
    return not _changes_finished(call)


def _manages(username: str, kind: str, name: str) -> bool:
    return bool(auth.authorize(username, (kind, name), [Requirement(kind, name, "manage")]))


def _changes_finished(call: str) -> bool:
    """Whether a request asks for a way past this server to a finished model's files, or removes its status."""
    if call.endswith("presigned-upload-url"):
        return _is_finished(_asked(CreatePresignedUploadUrl()).model_id)
    if request.method == "PATCH" and _FINALIZED.fullmatch(call):
        finalized = _asked(FinalizeLoggedModel())  # MLflow uses the model that is named in it, not in the path
        return int(finalized.status) != _READY and _is_finished(finalized.model_id)
    return False


def _model_of_file(call: str) -> str:
    """The logged model that a request writes or deletes a file of; empty if it is none's."""
    file = _WRITTEN_FILE.fullmatch(call)
    if file is None:
        return ""
    path = validate_path_is_safe(file[1])  # type: ignore[no-untyped-call]  # decodes once more, as MLflow does
    model = _FILE_OF_MODEL.fullmatch(posixpath.normpath(path))
    return "" if model is None else model[1]


def _is_finished(model_id: str) -> bool:
    if not model_id:
        return False
    try:
        model = handlers._get_tracking_store().get_logged_model(model_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return int(model.status.to_int()) == _READY


def _asked(message: Any) -> Any:
    """The request as MLflow's handler will read it, whatever spelling of JSON the client chose."""
    return handlers._get_request_message(message)  # type: ignore[no-untyped-call]


def _not_authenticated() -> Response:
    return auth.make_basic_auth_response()


def _forbidden() -> Response:
    return auth.make_forbidden_response()
