"""Reading versions of a line's registered model. All functions run within a session of the connection."""

from datetime import UTC, datetime

from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from morphad.base.errors import BadInputError
from morphad.registry.records import Version, model_name

_LARGEST = 2**31 - 1  # of a version number: databases refuse larger ones as no question at all


def registered(client: MlflowClient, line: str) -> RegisteredModel | None:
    """The line's registered model; the only answer of MLflow that holds the aliases of all versions."""
    try:
        return client.get_registered_model(model_name(line))
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def all_registered(client: MlflowClient) -> dict[str, RegisteredModel]:
    """The registered models of all lines, by line."""
    found: dict[str, RegisteredModel] = {}
    token = None
    while True:
        page = client.search_registered_models(f"name LIKE '{model_name('%')}'", max_results=1000, page_token=token)
        found |= {model.name.removeprefix(model_name("")): model for model in page}
        token = page.token
        if not token:
            return found


def ensure_registered(client: MlflowClient, line: str) -> None:
    """Make the line's registered model if it is not there; an account that may not make one may use one."""
    if registered(client, line) is not None:
        return
    try:
        client.create_registered_model(model_name(line), description=f"Inspection model of line {line}, by morphad")
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"}:
            raise


def aliases(model: RegisteredModel | None) -> dict[str, int]:
    """Alias to version number; an alias names one version at most."""
    return {} if model is None else {alias: int(number) for alias, number in model.aliases.items()}


def all_versions(client: MlflowClient, line: str, where: str = "") -> list[Version]:
    """Versions of a line, oldest first, optionally only those whose tags match a filter clause."""
    pointing = aliases(registered(client, line))
    clause = f"name = '{model_name(line)}'" + (f" and {where}" if where else "")
    found: list[Version] = []
    token = None
    while True:
        page = client.search_model_versions(clause, max_results=1000, page_token=token)
        found += [described(entity, pointing) for entity in page]
        token = page.token
        if not token:
            return sorted(found, key=lambda version: version.number)


def one_version(client: MlflowClient, line: str, number: int) -> Version:
    """One version by number.

    Raises:
        BadInputError: There is no such version; the message names those there are.
    """
    try:
        entity = client.get_model_version(model_name(line), str(min(number, _LARGEST)))
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        there = ", ".join(str(version.number) for version in all_versions(client, line)) or "none"
        raise BadInputError(f"no version {number} of {model_name(line)}; versions registered: {there}") from None
    return described(entity, aliases(registered(client, line)))


def exists(client: MlflowClient, line: str, number: int) -> bool:
    """Whether MLflow has a version."""
    try:
        client.get_model_version(model_name(line), str(min(number, _LARGEST)))
    except MlflowException as error:
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            return False
        raise
    return True


def described(entity: ModelVersion, pointing: dict[str, int]) -> Version:
    """MLflow's entity as ours."""
    number = int(entity.version)
    return Version(
        model_name=entity.name,
        number=number,
        run_id=entity.run_id or "",
        created_at=datetime.fromtimestamp(entity.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        aliases=tuple(sorted(alias for alias, target in pointing.items() if target == number)),
        tags=dict(entity.tags),
    )
