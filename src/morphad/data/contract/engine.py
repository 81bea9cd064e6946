"""The only place that knows Great Expectations: rules in, what does not meet them out."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read on import: no telemetry
for _name in ("great_expectations", "great_expectations.data_context.types.base"):
    logging.getLogger(_name).setLevel(logging.ERROR)

import great_expectations as gx  # noqa: E402
import pandas as pd  # noqa: E402
from great_expectations.checkpoint.actions import UpdateDataDocsAction  # noqa: E402
from great_expectations.data_context.types.base import ProgressBarsConfig  # noqa: E402

from morphad.base.progress import track  # noqa: E402
from morphad.data.contract.rule import Rows, Rule  # noqa: E402

Tables = Mapping[Rows, pd.DataFrame]

# The paths of what does not meet an expectation, without the query that would find them again: it is as long again.
_FORMAT = {
    "result_format": "COMPLETE",
    "unexpected_index_column_names": ["path"],
    "return_unexpected_index_query": False,
}


@dataclass(frozen=True)
class Outcome:
    """What became of a rule: whether it is met, and the images that do not meet it."""

    met: bool
    paths: tuple[str, ...]


def run(rules: Sequence[Rule], tables: Tables) -> dict[str, Outcome]:
    """Hold tables against rules; by name of the rule."""
    context = _context()
    found: dict[str, Outcome] = {}
    for name, table in track(tables.items(), "checking", total=len(tables)):
        own = [rule for rule in rules if rule.rows == name]
        if not own:
            continue
        batch = _batch(context, name).get_batch({"dataframe": table})
        validated = batch.validate(_suite(name, own), result_format=_FORMAT)
        outcomes = {outcome.expectation_config.meta["check"]: outcome for outcome in validated.results}
        found |= {rule.name: _outcome(rule, outcomes[rule.name]) for rule in own}
    return found


def write_data_docs(rules: Sequence[Rule], tables: Tables, folder: Path) -> None:
    """Write the pages of Great Expectations, Data Docs, into a folder; they load styles and charts from the network."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    context.delete_data_docs_site("local_site")
    context.add_data_docs_site(
        "contract",
        {
            "class_name": "SiteBuilder",
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.resolve())},
        },
    )
    for name, table in tables.items():
        own = [rule for rule in rules if rule.rows == name]
        if not own:
            continue
        suite = context.suites.add(_suite(name, own))
        definition = gx.ValidationDefinition(name=name, data=_batch(context, name), suite=suite)
        checkpoint = gx.Checkpoint(
            name=name,
            validation_definitions=[context.validation_definitions.add(definition)],
            actions=[UpdateDataDocsAction(name="docs")],
            result_format="SUMMARY",
        )
        context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": table})


@cache
def _context() -> Any:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    return context


def _batch(context: Any, table: Rows) -> Any:
    if table in context.data_sources.all():
        return context.data_sources.get(table).get_asset(table).get_batch_definition("all")
    return context.data_sources.add_pandas(table).add_dataframe_asset(table).add_batch_definition_whole_dataframe("all")


def _suite(name: str, rules: Sequence[Rule]) -> Any:
    expectations = [
        getattr(gx.expectations, rule.expectation)(**rule.arguments, meta={"check": rule.name}) for rule in rules
    ]
    return gx.ExpectationSuite(name, expectations=expectations)


def _outcome(rule: Rule, outcome: Any) -> Outcome:
    if outcome.exception_info.get("raised_exception"):
        raise RuntimeError(f"check {rule.name}: {outcome.exception_info['exception_message']}")
    if outcome.success:
        return Outcome(True, ())
    if rule.paths is not None:
        return Outcome(False, tuple(rule.paths if rule.rows == "figures" else sorted(rule.paths)))
    return Outcome(False, tuple(sorted(str(row["path"]) for row in outcome.result["unexpected_index_list"])))
