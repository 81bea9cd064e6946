"""params.yaml: what is wrong is told in one error that names file, key, value and what is allowed."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from morphad.base.errors import BadInputError
from morphad.settings import LineSettings, ProjectSettings, TrainSettings
from morphad.settings.presets import train_settings
from morphad.settings.reading import load_settings, resolve

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = ["ingest", "validate", "split", "train", "calibrate", "evaluate", "register", "promote"]


def nested(keys: str, value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} for "a.b"."""
    for key in reversed(keys.split(".")):
        value = {key: value}
    return dict(value)


def project(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return path


def line(**sections: Any) -> LineSettings:
    """Settings of a line with the given sections, through the whole resolution."""
    return resolve({"lines": {"bottle": {"ingest": {"path": "x"}, **sections}}}).line("bottle")


WRONG = [
    ("train.optimiser.stepz", 3, ["unknown key; did you mean steps? allowed here: ", "steps, batch_size"]),
    ("calibrate.rate", 3, ["unknown key", "false_reject_rate, confidence"]),
    ("train.optimiser.steps", "many", ["= 'many'", "valid integer", ">= 0 and <= 1000000"]),
    ("train.optimiser.steps", -1, ["= -1", ">= 0 and <= 1000000"]),
    ("train.optimiser.steps", True, ["= True", "valid integer", ">= 0 and <= 1000000"]),
    ("calibrate.false_reject_rate", 5, ["= 5", "> 0 and < 1"]),
    ("calibrate.false_reject_rate", float("nan"), ["= nan", "> 0 and < 1"]),
    ("train.optimiser.gradient_clip", float("inf"), ["= inf", "finite"]),
    ("ingest.limit", 0, ["= 0", ">= 1"]),
    ("ingest.path", 3, ["= 3", "valid string"]),
    ("train.backbone", ["small"], ["= ['small']", "valid string"]),
    ("train.device", "gpu", ["= 'gpu'", "'auto', 'cpu' or 'cuda'"]),
    ("train.image_size", 224, ["= 224", "a list", ">= 32 and <= 1024", "height, width"]),
    ("train.image_size", [224], ["= [224]", "too few", "height, width"]),
    ("train.image_size", [8, 64, 64], ["= [8, 64, 64]", "at most 2 items"]),
    ("train.cases.heights", 3, ["= 3", "a list", "each >= 1 and <= 64"]),
    ("train.cases.heights", [], ["= []", "at least 1 item"]),
    ("train.cases.operators", "erosion", ["= 'erosion'", "a list", "erosion, dilation, gradient"]),
    ("train.optimiser", None, ["= None", "a mapping"]),
    ("split.renew_holdout", "yes", ["= 'yes'", "valid boolean"]),
    ("validate.limits.brightness", [200, 40], ["= [200, 40]", "the lowest, 200, is above the highest, 40"]),
    ("validate.limits.brightness", [None, None], ["give a number for the lowest, the highest or both"]),
    ("validate.limits.lightness", [1, 2], ["= 'lightness'", "'brightness', 'contrast'"]),
    ("validate.severity.camera", "fatal", ["= 'fatal'", "'error', 'warning' or 'off'"]),
]


@pytest.mark.parametrize(("key", "value", "told"), WRONG)
@pytest.mark.parametrize("where", ["defaults", "lines.bottle"])
def test_a_wrong_value_is_named_where_it_was_written(
    where: str, key: str, value: Any, told: list[str], tmp_path: Path
) -> None:
    raw: dict[str, Any] = {"defaults": {}, "lines": {"bottle": {}}}
    if where == "defaults":
        raw["defaults"] = nested(key, value)
        if not key.startswith("ingest.path"):
            raw["lines"]["bottle"] = {"ingest": {"path": "x"}}
    else:
        raw["defaults"] = {"ingest": {"path": "x"}}
        raw["lines"]["bottle"] = nested(key, value)
    path = tmp_path / "params.yaml"
    YAML().dump(raw, path)

    with pytest.raises(BadInputError) as failure:
        load_settings(path)

    message = str(failure.value)
    assert message.startswith(f"{path}: {where}.{key}")
    assert all(part in message for part in told), message
    assert "\n" not in message
    assert "tuple" not in message.lower()
    assert "Settings" not in message  # the names of our classes mean nothing to the reader


def test_a_check_that_is_none_is_told_with_those_that_are_meant() -> None:
    with pytest.raises(BadInputError, match=r"no check 'camra'; did you mean camera\?"):
        line(validate={"severity": {"camra": "off"}})


@pytest.mark.parametrize("value", [[8, 64], ["a", 64]])
def test_a_wrong_item_of_a_list_is_named_with_its_place_and_range(value: list[Any]) -> None:
    with pytest.raises(BadInputError, match=r"lines\.bottle\.train\.image_size\[0\] = .*>= 32 and <= 1024"):
        line(train={"image_size": value})


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation, f"{prefix}{field.alias or name}.")
        else:
            yield f"{prefix}{name}", field.annotation, field.metadata


@pytest.mark.parametrize(("key", "kind", "limits"), list(_fields(LineSettings)))
def test_the_message_of_every_field_says_what_it_takes(key: str, kind: Any, limits: Any) -> None:
    with pytest.raises(BadInputError) as failure:
        resolve({"defaults": {"ingest": {"path": "x"}}, "lines": {"bottle": nested(key, object())}})

    message = str(failure.value)
    assert message.startswith(f"lines.bottle.{key} = ")
    if get_origin(kind) is Literal:
        assert all(repr(choice) in message for choice in get_args(kind))
    elif key == "train.processes":  # a number or a word: its own validator says so
        assert "expected a whole number of 1 to 64, or auto" in message
    elif key == "calibrate.false_reject_rate":
        assert "expected a number > 0 and < 1, such as 0.02, or attainable" in message
    elif {int, float} & {kind, *get_args(kind)} or (limits and kind is not str and "tuple" not in str(kind)):
        assert "allowed: " in message
    else:
        assert any(word in message for word in ("valid string", "valid boolean", "a list", "a mapping"))


def test_a_line_without_a_source_is_told_what_to_give() -> None:
    for raw in ({}, None, {"ingest": {}}, {"ingest": None}, {"ingest": {"source": "demo"}}):
        for defaults in ({}, {"ingest": {"max_rejects": 0}}):
            with pytest.raises(BadInputError) as failure:
                resolve({"defaults": defaults, "lines": {"a": raw}})
            assert str(failure.value) == (
                "lines.a.ingest.path: missing; "
                "the folder, s3://bucket/prefix, the listing, or the demo line (mono, poly)"
            )


def test_an_empty_path_is_not_the_current_folder() -> None:
    with pytest.raises(BadInputError, match=r"lines\.a\.ingest\.path = ''.*the folder"):
        resolve({"lines": {"a": {"ingest": {"path": ""}}}})


def test_incomplete_prices_are_told_where_they_stand() -> None:
    with pytest.raises(BadInputError, match=r"^lines\.bottle\.evaluate\.cost\.escape: missing; .*> 0.*price"):
        line(evaluate={"cost": {"overkill": 1}})
    with pytest.raises(BadInputError, match=r"^defaults\.evaluate\.cost\.escape: missing"):
        resolve({"defaults": {"evaluate": {"cost": {"overkill": 1}}}, "lines": {"a": {"ingest": {"path": "x"}}}})


@pytest.mark.parametrize(
    ("ingest", "told"),
    [
        ({"source": "s3", "path": "/data"}, "must be s3://bucket/prefix"),
        ({"path": "s3://bucket/prefix"}, "set `source: s3`"),
        ({"path": "x", "metadata": {"tags": {"lot": "lot"}}}, "objects in a bucket"),
        ({"source": "demo", "path": "mono", "metadata": {"pattern": "(?P<lot>.)"}}, "folder and s3, not demo"),
        ({"path": "x", "metadata": {"pattern": "("}}, "no regular expression: missing )"),
        ({"path": "x", "metadata": {"pattern": "L"}}, "no named group"),
        ({"path": "x", "metadata": {"pattern": "(?P<lost>.)"}}, "has the group lost; allowed: label, defect, group"),
        ({"path": "x", "metadata": {"pattern": "(?P<lot>.)", "sidecar": {"lot": "l"}}}, "lot is read from two"),
        ({"path": "x", "metadata": {"labels": {"OK": "gut"}}}, "ingest.metadata.labels.OK = 'gut'"),
        ({"path": "x", "metadata": {"sidecar": {"lott": "l"}}}, "ingest.metadata.sidecar.lott"),
    ],
)
def test_sources_and_metadata_that_do_not_fit_are_told(ingest: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInputError) as failure:
        line(ingest=ingest)
    assert told in str(failure.value)


@pytest.mark.parametrize("name", ["Bottle", "a_b", "-a", "a-", "a b", "ö", "", "a" * 64, "../x", "a/b", "a\n"])
def test_a_bad_line_name_is_refused(name: Any) -> None:
    with pytest.raises(BadInputError, match=r"^lines\..*a-z, 0-9 and inner hyphens, at most 63"):
        resolve({"lines": {name: {"ingest": {"path": "x"}}}})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected keys"),
        ("- a", "expected keys"),
        ("a: [b", "not valid YAML"),
        ("seed: 1\n---\nseed: 2", "not valid YAML"),
        ("seed: !!python/object:os.system x", "not valid YAML"),
        ("lines: {}", "lines: is empty"),
        ("lines: 3", "lines = 3"),
        ("lines: {a: 3}", "lines.a = 3"),
        ("defaults: 3\nlines: {a: {ingest: {path: x}}}", "defaults = 3"),
        (
            "lines: {a: {ingest: {path: x}}}\nsed: 1",
            "unknown key 'sed'; did you mean seed? allowed: seed, data",
        ),
        ("lines: {a: {ingest: {path: x}}}\nseed: -1", "seed = -1"),
        ("lines: {a: {ingest: {path: x}}}\nseed: x", "seed = 'x'"),
        ("lines: {a: {path: x}}", "lines.a.ingest.path: missing"),
        ("lines: {a: {ingest: {path: x}, path: x}}", "lines.a.path: unknown key; allowed here: ingest, validate"),
        ("lines: {a: {ingest: {path: x}, 3: 4}}", "lines.a.3: unknown key"),
        ("lines: {a: {ingest: {path: x}, train: {3: 4}}}", "lines.a.train.3: unknown key"),
        ("lines: {a: {ingest: {path: x}, train: 3}}", "lines.a.train = 3: Input should be a mapping"),
        ("lines:\n  a: {ingest: {path: x}}\n  a: {ingest: {path: y}}", 'duplicate key "a"'),
        ("lines: {a: {ingest: {path: x, path: y}}}", 'duplicate key "path"'),
        ("lines: &x {a: *x}", "lines.a"),
        ("lines: {4711: {ingest: {path: x}}}", "lines.4711: YAML reads this name as a number"),
        ("lines: {4711: {ingest: {path: x}}}", 'write it in quotes, such as "4711":'),
        ("lines: {2026-03-01: {ingest: {path: x}}}", "lines.2026-03-01: YAML reads this name as a date"),
        ("lines: {true: {ingest: {path: x}}}", "YAML reads this name as true or false"),
    ],
)
def test_a_file_that_is_no_settings_file_is_told_in_one_line(text: str, told: str, tmp_path: Path) -> None:
    path = project(tmp_path, text)

    with pytest.raises(BadInputError) as failure:
        load_settings(path)

    assert str(failure.value).startswith(f"{path}: ")
    assert told in str(failure.value)
    assert "\n" not in str(failure.value)


def test_bytes_and_folders_are_no_settings(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, told in ((binary, "not valid YAML"), (tmp_path, "cannot be read"), (tmp_path / "no", "not found")):
        with pytest.raises(BadInputError, match=told) as failure:
            load_settings(path)
        assert str(path) in str(failure.value)


def test_an_unknown_line_is_answered_with_those_there_are() -> None:
    settings = resolve({"lines": {"b": {"ingest": {"path": "x"}}, "a": {"ingest": {"path": "x"}}}})
    with pytest.raises(BadInputError, match="no line 'c' in the settings; the lines are: a, b"):
        settings.line("c")


def test_a_mistyped_line_is_asked_about() -> None:
    settings = resolve({"lines": {"pv-mono": {"ingest": {"path": "x"}}, "pcb": {"ingest": {"path": "x"}}}})
    with pytest.raises(BadInputError, match=r"no line 'pv-mno' in the settings; did you mean pv-mono\?$"):
        settings.line("pv-mno")


def test_rules_between_values_name_the_values() -> None:
    with pytest.raises(BadInputError, match=r"lines\.bottle\.split: `calibration` 0.5 \+ `holdout` 0.4.*0\.9"):
        line(split={"calibration": 0.5, "holdout": 0.4})
    with pytest.raises(BadInputError, match=r"train\.score: `neighbours` 5 must be at most `memory` 2"):
        line(train={"score": {"memory": 2, "neighbours": 5}})
    for margin, told in (
        ({"kind": "multiplicative"}, r"`margin` 0\.2 .*>= 1"),
        ({"kind": "additive_angular", "margin": 3.5}, r"`margin` 3\.5 .*3\.1"),
        ({"kind": "additive_cosine", "margin": 2.5}, r"`margin` 2\.5 .*below 2"),
    ):
        with pytest.raises(BadInputError, match=r"lines\.bottle\.train\.margin: " + told):
            line(train={"margin": margin})


class TestLayers:
    """A line over the defaults over the preset."""

    def test_a_line_overrides_one_value_and_keeps_the_others(self) -> None:
        settings = resolve(
            {
                "seed": 7,
                "defaults": {
                    "ingest": {"max_rejects": 3, "path": "all"},
                    "train": {"optimiser": {"steps": 9, "batch_size": 8}},
                    "evaluate": {"cost": {"overkill": 1.0, "escape": 2.0, "defect_rate": 0.1}},
                },
                "lines": {
                    "a": {"train": {"optimiser": {"steps": 5}}, "evaluate": {"cost": None}},
                    "b": {"ingest": {"path": "own"}, "train": None},
                },
            }
        )

        a, b = settings.line("a"), settings.line("b")
        assert settings.seed == 7
        assert (a.train.optimiser.steps, a.train.optimiser.batch_size) == (5, 8)
        assert (b.train.optimiser.steps, b.train.optimiser.batch_size) == (9, 8)
        assert (a.ingest.path, b.ingest.path, b.ingest.max_rejects) == ("all", "own", 3)
        assert a.evaluate.cost is None
        assert b.evaluate.cost is not None

    def test_the_preset_of_a_line_wins_over_that_of_the_defaults(self) -> None:
        raw = {
            "defaults": {"train": {"preset": "default"}},
            "lines": {"a": {"ingest": {"path": "x"}, "train": {"preset": "paper"}}, "b": {"ingest": {"path": "x"}}},
        }
        settings = resolve(raw)
        assert settings.line("a").train == train_settings({"preset": "paper"})
        assert settings.line("b").train == train_settings({"preset": "default"})

    def test_explicit_keys_win_over_the_preset_wherever_they_stand(self) -> None:
        settings = resolve(
            {
                "defaults": {"train": {"image_size": [64, 48], "optimiser": {"steps": 3}}},
                "lines": {"a": {"ingest": {"path": "x"}, "train": {"preset": "paper", "colour": "rgb"}}},
            }
        ).line("a")
        paper = train_settings({"preset": "paper"})
        assert settings.train.image_size == (64, 48)
        assert settings.train.colour == "rgb"
        assert settings.train.optimiser.steps == 3
        assert settings.train.optimiser.batch_size == paper.optimiser.batch_size
        assert settings.train.backbone == paper.backbone

    def test_without_any_train_section_the_default_preset_holds(self) -> None:
        assert line().train == train_settings({"preset": "default"}) == line(train={}).train == line(train=None).train

    def test_module_names_of_a_preset_do_not_follow_to_another_backbone(self) -> None:
        other = train_settings({"backbone": "small", "weights": "none", "score": {"layers": ["stage2"]}})
        assert (other.frozen, other.embedding_layer) == ((), "")
        same = train_settings({"backbone": "efficientnet_lite0"})
        assert same == train_settings({})

    def test_presets_are_known_settings(self) -> None:
        for preset in get_args(TrainSettings.model_fields["preset"].annotation):
            assert train_settings({"preset": preset}).preset == preset


def test_settings_cannot_be_changed() -> None:
    settings = line()
    with pytest.raises(ValidationError):
        settings.train.optimiser.steps = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.train = TrainSettings()  # type: ignore[misc]


def test_what_is_written_for_the_record_reads_back() -> None:
    settings = line(train={"preset": "paper"}, evaluate={"cost": {"overkill": 1, "escape": 9, "defect_rate": 0.1}})
    assert LineSettings.model_validate(settings.model_dump(mode="json", by_alias=True)) == settings


class TestOwnProject:
    """The project's own params.yaml and dvc.yaml."""

    @pytest.fixture
    def raw(self) -> dict[str, Any]:
        return dict(YAML(typ="safe").load((ROOT / "params.yaml").read_text()))

    def test_it_loads(self, raw: dict[str, Any]) -> None:
        settings = load_settings(ROOT / "params.yaml")
        assert isinstance(settings, ProjectSettings)
        assert set(settings.lines) == set(raw["lines"])


SECRETS = """
defaults:
  register:
    tracking_uri: "http://anna:hush/hush@mlflow.plant"
data:
  registry: https://hush@git.plant/data.git
  remote: s3://KEY:hush@bucket/dvc
lines:
  cookie:  # whose name sounds secret to some
    ingest: {source: s3,
      path: "s3://KEY:hush@bucket/cookie", verdicts: "s3://bucket/v.csv"}
    register: {experiment: "x?token=hush"}
"""


class TestPasswords:
    def test_each_is_a_warning_that_names_its_place_and_where_it_belongs(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = project(tmp_path, SECRETS)
        settings = load_settings(path)
        load_settings(path)
        assert settings.line("cookie").register_.tracking_uri == "http://anna:hush/hush@mlflow.plant"  # as it was
        said = caplog.messages
        assert [text.partition(" holds ")[0] for text in said] == [
            f"{path}, line 4: warning: defaults.register.tracking_uri",
            f"{path}, line 6: warning: data.registry",
            f"{path}, line 7: warning: data.remote",
            f"{path}, line 11: warning: lines.cookie.ingest.path",
            f"{path}, line 12: warning: lines.cookie.register.experiment",
        ]
        wanted = ["MLFLOW_TRACKING_PASSWORD", "MORPHAD_DATA_REGISTRY", "AWS_PROFILE", "AWS_PROFILE", "remove it"]
        assert all(remedy in text for remedy, text in zip(wanted, said, strict=True))
        assert not any(secret in text for text in said for secret in ("hush", "KEY:", "anna"))

    def test_it_is_told_on_the_terminal(self, tmp_path: Path) -> None:
        project(tmp_path, SECRETS)
        done = subprocess.run(
            [sys.executable, "-m", "morphad.cli", "summary"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0
        assert done.stderr.count("params.yaml, line 4: warning: defaults.register.tracking_uri") == 1
        assert "hush" not in done.stdout + done.stderr

    def test_settings_without_any_are_read_in_silence(self, caplog: pytest.LogCaptureFixture) -> None:
        load_settings(ROOT / "params.yaml")
        assert caplog.messages == []

    def test_an_error_does_not_show_it(self, tmp_path: Path) -> None:
        path = project(tmp_path, "lines: {bottle: {ingest: {path: 's3://KEY:hu/sh@bucket/x'}}}")
        with pytest.raises(BadInputError, match=r"`path` 's3://\*\*\*@bucket/x' is in a bucket") as caught:
            load_settings(path)
        assert "hu" not in str(caught.value)
