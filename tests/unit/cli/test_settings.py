"""Settings: from [tool.ceqs], overridden by CEQS_*, refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from ceqs.cli._settings import Settings, kinds_of_settings, load_settings
from ceqs.errors import Misconfigured


def project(directory: Path, table: str) -> Path:
    (directory / "pyproject.toml").write_text(f"[tool.ceqs]\n{table}\n")
    return directory


def test_without_a_project_there_are_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    assert settings.contexts == []
    assert settings.log_url("orders") == f"sqlite:///{tmp_path}/.ceqs/logs/orders.db"


def test_settings_come_from_the_nearest_project(tmp_path: Path) -> None:
    project(tmp_path, 'contexts = ["shop.orders.context:orders"]\ndata = "state"')
    inner = tmp_path / "some/where"
    inner.mkdir(parents=True)
    (inner / "pyproject.toml").write_text("[project]\nname = 'not-of-ceqs'\n")
    settings = load_settings(inner)
    assert settings.contexts == ["shop.orders.context:orders"]
    assert settings.project == tmp_path
    assert settings.models_url == f"sqlite:///{tmp_path}/state/models"


OVERRIDES = {
    "contexts": ("a.context:a, b.context:b", ["a.context:a", "b.context:b"]),
    "addresses": ("a=127.0.0.1:1,b=[::1]:2", {"a": "127.0.0.1:1", "b": "[::1]:2"}),
    "query_addresses": ("a=127.0.0.1:3", {"a": "127.0.0.1:3"}),
    "event_addresses": ("a=127.0.0.1:4", {"a": "127.0.0.1:4"}),
    "data": ("/elsewhere", Path("/elsewhere")),
    "store": ("postgres", "postgres"),
    "database_url": ("postgresql://me@db/shop", "postgresql://me@db/shop"),
    "partitions": ("Sales=4", {"Sales": 4}),
    "model_urls": ("Sales=postgresql://db/sales", {"Sales": "postgresql://db/sales"}),
    "read_url": ("postgresql://reader@db/shop", "postgresql://reader@db/shop"),
    "scratch_url": ("sqlite:////elsewhere", "sqlite:////elsewhere"),
    "scratch_megabytes": ("64", 64),
    "scratch_seconds": ("2.5", 2.5),
    "scratch_minutes": ("0.5", 0.5),
    "nats_url": ("nats://n:1", "nats://n:1"),
    "stream_days": ("0.5", 0.5),
    "stream_messages": ("1000", 1000),
    "stream_megabytes": ("64", 64),
    "stream_replicas": ("3", 3),
    "processes": ("3", 3),
    "purge_hours": ("0.5", 0.5),
    "key": ("secret", "secret"),
    "tls_certificate": ("c.pem", Path("c.pem")),
    "tls_key": ("k.pem", Path("k.pem")),
    "grace": ("2.5", 2.5),
    "proto": ("api", Path("api")),
    "generated": ("gen", Path("gen")),
}


def test_every_setting_has_an_override_here() -> None:
    assert set(OVERRIDES) == set(kinds_of_settings())


@pytest.mark.parametrize("name", OVERRIDES)
def test_the_environment_overrides(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, value = OVERRIDES[name]
    project(tmp_path, 'contexts = ["x:y"]\ndata = "d"\nstore = "sqlite"\nkey = "k"\ngrace = 1\nproto = "p"')
    monkeypatch.setenv(f"CEQS_{name.upper()}", text)
    assert getattr(load_settings(tmp_path), name) == value


def test_an_address_may_be_a_port(tmp_path: Path) -> None:
    assert load_settings(project(tmp_path, "addresses = { orders = 6000 }")).addresses == {"orders": "127.0.0.1:6000"}


def refusal(directory: Path) -> str:
    with pytest.raises(Misconfigured) as refused:
        load_settings(directory)
    return refused.value.message


def test_an_unknown_setting_is_refused_with_the_nearest_right_one(tmp_path: Path) -> None:
    message = refusal(project(tmp_path, 'context = ["x:y"]'))
    assert message == f"{tmp_path}/pyproject.toml: [tool.ceqs] context: unknown setting; did you mean contexts?"


def test_a_setting_like_no_other_is_refused_with_all_there_are(tmp_path: Path) -> None:
    assert "there are contexts, addresses, query_addresses" in refusal(project(tmp_path, "zzz = 1"))


def test_a_value_of_the_wrong_kind_is_refused_where_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(tmp_path, 'grace = "soon"')
    assert f"{tmp_path}/pyproject.toml: [tool.ceqs] grace: " in refusal(tmp_path)
    monkeypatch.setenv("CEQS_STORE", "oracle")
    project(tmp_path, "")
    assert "the environment: CEQS_STORE: should be 'sqlite' or 'postgres', not 'oracle'" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("processes", "many", "a whole number"),
        ("processes", "0", "1 or more"),
        ("processes", "1.5", "a whole number"),
        ("grace", "-1", "0 or more"),
        ("grace", "nan", "or less"),
        ("scratch_seconds", "0", "more than 0"),
        ("stream_replicas", "6", "5 or less"),
    ],
)
def test_a_number_out_of_range_is_refused_with_what_it_should_be(
    name: str, text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"CEQS_{name.upper()}", text)
    message = refusal(project(tmp_path, ""))
    assert message.startswith(f"the environment: CEQS_{name.upper()}: should be ")
    assert message.endswith(f"{said}, not {text!r}")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("contexts = 1", "a list, not 1"),
        ("contexts = [1]", "text, not [1]"),
        ("addresses = ['a']", "a table, not ['a']"),
        ("data = 1", "text, not 1"),
        ("processes = true", "a whole number, not True"),
        ("grace = false", "a number, not False"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_it_should_be(line: str, said: str, tmp_path: Path) -> None:
    message = refusal(project(tmp_path, line))
    assert message == f"{tmp_path}/pyproject.toml: [tool.ceqs] {line.partition(' ')[0]}: should be {said}"


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    message = refusal(project(tmp_path, 'grace = "soon"\nproceses = 2'))
    assert "grace: should be a number, not 'soon'; " in message
    assert "proceses: unknown setting; did you mean processes?" in message


def test_a_misspelt_variable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CEQS_DATABSE_URL", "postgresql://me@db/shop")
    assert "CEQS_DATABSE_URL: unknown setting; did you mean CEQS_DATABASE_URL?" in refusal(project(tmp_path, ""))


def test_variables_that_others_set_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CEQS_SERVICE_HOST", "10.0.0.1")
    load_settings(project(tmp_path, ""))


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.ceqs\n")
    assert f"{tmp_path}/pyproject.toml: cannot be read" in refusal(tmp_path)


def test_the_postgres_store_needs_a_url(tmp_path: Path) -> None:
    settings = load_settings(project(tmp_path, 'store = "postgres"'))
    with pytest.raises(Misconfigured, match="CEQS_DATABASE_URL"):
        settings.log_url("orders")
    url = "postgresql://me@db/shop"
    settings = load_settings(project(tmp_path, f'store = "postgres"\ndatabase_url = "{url}"'))
    assert settings.log_url("orders") == settings.models_url == url


def test_a_handler_may_have_a_database_of_its_own(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, model_urls={"Sales": "postgresql://a/b", "orders/Sales": "postgresql://c/d"})
    assert settings.models_url_of("orders", "Sales") == "postgresql://c/d"
    assert settings.models_url_of("returns", "Sales") == "postgresql://a/b"
    assert settings.models_url_of("orders", "CustomerHistory") == settings.models_url
