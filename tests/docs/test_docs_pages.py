"""Links lead somewhere, commands exist, words are those of the glossary, generated pages are fresh."""

import argparse
import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import PAGES, REPO, anchors, commands, is_for_everybody, links, name, sentences, text, verbs

from morphad import cli
from morphad.base.files import sha256_file

GENERATED = {"settings.md", "command-line.md"}
TAGS = {"data_version", "reason", "pending"}  # of runs and versions in MLflow
MADE = {"docker/.env", "docker/wheels"}  # by those who use it
LEFT = re.compile(
    r"\b(told|tell(s|ing)?|borne|bears?|relief|self-made|leaves? over|(one|two|both|second|morphological) looks?)\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)}: {link}"
        assert target.is_relative_to(REPO), f"{name(page)}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{name(page)}: {link}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name)
def test_files_and_modules_that_are_named_are_there(page: Path) -> None:
    for path in re.findall(r"`((?:src|tests|components|pipelines|benchmarks|stack|docker)/[\w/.-]*\w)`", text(page)):
        there = path in MADE or "NAME" in path or (REPO / path).exists()
        assert there, f"{name(page)}: {path}"
    for module in re.findall(r"python -m ((?:benchmarks|stack|morphad|components|pipelines)[\w.]*\w)", text(page)):
        file = (REPO / "src" if module.startswith("morphad") else REPO) / module.replace(".", "/")
        assert file.with_suffix(".py").exists() or (file / "__main__.py").exists(), f"{name(page)}: {module}"
    for module in re.findall(r"`(morphad(?:\.[a-z_]+)+)`", text(page)):
        first = module.split(".")[1]
        assert first in TAGS or list((REPO / "src" / "morphad").glob(f"{first}*")), f"{name(page)}: {module}"


def test_every_page_can_be_found_from_the_index() -> None:
    index = REPO / "docs" / "README.md"
    found, new = {index}, [index]
    while new:
        page = new.pop()
        there = {(page.parent / link.partition("#")[0]).resolve() for link in links(page)}
        more = {target for target in there if target.suffix == ".md" and target.is_file()} - found
        found |= more
        new += more
    assert not [name(page) for page in PAGES if "docs" in page.parts and page not in found]


def _words(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The verbs of a parser, and those of its groups with the group before them."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, below in action.choices.items():
                yield verb
                yield from (f"{verb} {word}" for word in _words(below))


def _parser_of(first: str) -> argparse.ArgumentParser:
    if first not in {"pipeline", "schedule"}:
        return cli._parser()
    pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")
    from morphad.kubeflow import cli as kubeflow_cli

    return kubeflow_cli._parser()


@pytest.mark.parametrize(
    "line", sorted({line for page in PAGES for line in commands(page)}), ids=lambda line: line[8:60]
)
def test_commands_are_morphads(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    _parser_of(words[0]).parse_args(words)  # ends the process for words that it does not know


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_verbs_in_the_text_are_morphads(page: Path) -> None:
    for said in verbs(page):
        first = said.split()[0]
        known = set(_words(_parser_of(first)))
        assert first in known, f"{name(page)}: morphad {said}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in GENERATED], ids=name)
def test_words_that_were_left_do_not_come_back(page: Path) -> None:
    found = [line.strip() for line in text(page).splitlines() if LEFT.search(line)]
    assert not found, f"{name(page)}: {found}"


def test_words_that_were_left_do_not_come_back_in_messages_and_docstrings() -> None:
    found = []
    for root in (REPO / "src" / "morphad", REPO / "components", REPO / "pipelines"):
        for file in root.rglob("*.py"):
            texts = (node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Constant))
            found += [
                f"{file}:{node.lineno}" for node in texts if isinstance(node.value, str) and LEFT.search(node.value)
            ]
    assert not found


def test_generated_pages_are_fresh() -> None:
    pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")
    command = [sys.executable, str(REPO / "docs" / "generate.py"), "--check"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_picture_of_the_readme_is_of_todays_page() -> None:
    made = json.loads((REPO / "docs" / "images" / "page.json").read_text(encoding="utf-8"))
    folder = REPO / "src" / "morphad" / "report"
    changed = [file for file, known in made["drawn_by"].items() if sha256_file(folder / file) != known]
    remedy = "run `make picture` (needs chromium), view docs/images/page.png, and commit it with page.json"
    assert not changed, f"{', '.join(changed)} of src/morphad/report changed since {made['made']}: {remedy}"
    assert {"head.html", "page.html", "page.css", "charts.py"} == set(made["drawn_by"])


def test_decisions_have_a_date_and_a_row_in_the_index() -> None:
    folder = REPO / "docs" / "decisions"
    index = text(folder / "README.md")
    for page in folder.glob("*.md"):
        if page.name == "README.md":
            continue
        dated = re.search(r"^Decided (\d{4}-\d{2}-\d{2})\b", text(page), re.MULTILINE)
        assert dated, name(page)
        assert re.search(rf"^\| \[[\w-]+\]\({page.name}\) \| .* \| {dated[1]} \|$", index, re.MULTILINE), name(page)


def test_the_map_of_src_names_every_room() -> None:
    block = text(REPO / "CONTRIBUTING.md").partition("src/morphad/\n")[2].partition("```")[0]
    named = set(re.findall(r"^  ([\w.]+)/? +", block, re.MULTILINE))
    rooms = {path.parent.name for path in (REPO / "src" / "morphad").glob("*/__init__.py")}
    files = {path.name for path in (REPO / "src" / "morphad").glob("*.py")} - {"__init__.py"}
    assert named == rooms | files


def test_the_readme_is_short() -> None:
    assert len(text(REPO / "README.md").splitlines()) <= 120


@pytest.mark.parametrize("page", [page for page in PAGES if is_for_everybody(page)], ids=name)
def test_sentences_are_short(page: Path) -> None:
    long = [sentence for sentence in sentences(page) if len(sentence.split()) > 30]
    assert not long, f"{name(page)}: {long}"


def test_long_sentences_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Short.\n\n- one " + "word " * 31 + "\n- two\n\n```\n" + "code " * 40 + "\n```\n\n| " + "x " * 40)
    assert [len(sentence.split()) for sentence in sentences(page)] == [1, 33, 2]
