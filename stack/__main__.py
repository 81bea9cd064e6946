"""PostgreSQL, an S3 server and MLflow on this machine, started and stopped together."""

import argparse
import os
import sys
from pathlib import Path

from morphad.base.errors import BadInputError, CheckFailedError, MorphadError
from stack.access import ADMIN, ROLES, Access
from stack.object_store import S3_OFFSETS
from stack.ports import free_port
from stack.stack import Stack, StackSettings, make_account

_PORTS = ("postgres_port", "s3_port", "mlflow_port")


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and give the exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.verb(options)
    except MorphadError as error:
        print(f"stack {options.name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"stack {options.name}: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stack", description=__doc__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name, verb, about in (
        ("up", _up, "start what is not running"),
        ("status", _status, "say what is running; exit code 1 if not everything is"),
        ("down", _down, "stop what is running; data stay"),
        ("account", _account, "give somebody an account in MLflow; name and password go to FOLDER/env.NAME"),
    ):
        one = verbs.add_parser(name, help=about, description=about)
        one.set_defaults(verb=verb, name=name)
        one.add_argument(
            "--folder", type=Path, default=Path(".stack"), help="data, logs and credentials (default: %(default)s)"
        )
        if verb is _up:
            for key in _PORTS:
                field = StackSettings.model_fields[key]
                one.add_argument(
                    f"--{key.replace('_', '-')}",
                    type=int,
                    metavar="NUMBER",
                    help=f"{field.description}, kept for next time; 0: any that is free (default: {field.default})",
                )
        if verb is _account:
            one.add_argument("account", metavar="NAME", help="whose it is; records of decisions will name it")
            one.add_argument("--role", choices=ROLES, required=True, help="what it may do (docs/decisions/access.md)")
            one.add_argument(
                "--uri",
                help="of another MLflow server with accounts, whose administrator MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD name (default: the stack of the folder)",
            )
    return parser


def _up(options: argparse.Namespace) -> None:
    ports = {key: getattr(options, key) for key in _PORTS if getattr(options, key) is not None}
    for key in [key for key, port in ports.items() if port == 0]:
        ports[key] = free_port(S3_OFFSETS if key == "s3_port" else (0,))
    stack = Stack.open(options.folder, ports)
    _ask_for_patience("PostgreSQL and S3 start, then MLflow: some 20 s")
    stack.up(_tell)
    print(f"For clients, in this shell:  source {options.folder / stack.environment_file.name}")


def _status(options: argparse.Namespace) -> None:
    servers = Stack.open(options.folder).servers if options.folder.is_dir() else ()
    running = [server.running for server in servers]
    for server, runs in zip(servers, running, strict=True):
        _tell(f"{server.name}: {f'running, {server.endpoint}' if runs else 'not running'}")
    if not servers or not all(running):
        raise CheckFailedError("not everything is running; start it: python -m stack up")


def _down(options: argparse.Namespace) -> None:
    if options.folder.is_dir():
        _ask_for_patience("MLflow ends, then PostgreSQL and S3: some 20 s")
        Stack.of_running(options.folder).down(_tell)
    else:
        _tell(f"no stack in {options.folder}")


def _account(options: argparse.Namespace) -> None:
    if options.uri is None:
        if not options.folder.is_dir():
            raise BadInputError(f"no stack in {options.folder}; start one: python -m stack up")
        stack = Stack.open(options.folder)
        uri, access = stack.tracking.endpoint, stack.tracking.access
    else:
        password = os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
        if not password or not options.uri.startswith(("http://", "https://")):
            raise BadInputError(
                "--uri is http://HOST:PORT or https://HOST, and MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD in the environment must be its administrator's"
            )
        name = os.environ.get("MLFLOW_TRACKING_USERNAME", ADMIN)
        uri, access = options.uri.rstrip("/"), Access(options.uri, password, name)
    path = make_account(access, uri, options.account, options.role, options.folder)
    print(f"{options.account} is {options.role}. In a shell:  source {path}")


def _ask_for_patience(line: str) -> None:
    if sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
