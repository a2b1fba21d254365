from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.cloud.access import (
    RECHECK_S,
    ROLES,
    Access,
    AccessFile,
    Action,
    Key,
    Role,
    check_allowed,
    new_key,
    read_access_file,
    shown_secret,
    write_access_file,
)
from tidegate.cloud.core import LocalCaller
from tidegate.cloud.guard import ACTION_BY_METHOD, action_of
from tidegate.errors import AccessError, ConfigError, NotFoundError
from tidegate.wire.services import OPEN_INFERENCE, SPEECH
from tidegate.wire.status import code_of


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def caller(secret: str) -> LocalCaller:
    return LocalCaller(metadata={"authorization": f"Bearer {secret}"})


def written(path: Path, *keys: Key) -> Path:
    write_access_file(path, AccessFile(keys=keys))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_that_was_made_is_known_and_its_secret_is_not_in_the_file(path: Path) -> None:
    key, secret = new_key(("infer",), ("linear",))
    access = Access(written(path, key))
    assert access.identify(caller(secret)) == key
    assert access.identify(LocalCaller(metadata={"x-api-key": secret})) == key
    assert secret not in path.read_text()
    assert secret.rpartition("_")[2] not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_no_two_secrets_are_alike_and_each_has_32_random_bytes() -> None:
    secrets = {new_key(("infer",), ("*",))[1] for _ in range(100)}
    assert len(secrets) == 100
    assert {len(secret.split("_", 2)[2]) for secret in secrets} == {43}


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Basic dXNlcjpwYXNz"},
        {"x-api-key": ""},
        {"authorization": "Bearer tg_0000000000_" + "A" * 43},
        {"authorization": "Bearer \udcff\udcfe"},
        {"x-api-key": "ключ"},
    ],
)
def test_who_shows_no_known_key_is_unauthenticated(path: Path, metadata: dict[str, str]) -> None:
    access = Access(written(path, new_key(("infer",), ("*",))[0]))
    with pytest.raises(AccessError) as refused:
        access.admit(LocalCaller(metadata=metadata), "linear")
    assert code_of(refused.value) == "UNAUTHENTICATED"
    assert refused.value.fix


@given(st.data())
def test_a_secret_that_differs_in_one_character_is_unknown(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    key, secret = new_key(("infer",), ("*",))
    access = Access(written(tmp_path_factory.mktemp("keys") / "keys.json", key))
    at = data.draw(st.integers(0, len(secret) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda letter: letter != secret[at]))
    with pytest.raises(AccessError):
        access.identify(caller(secret[:at] + other + secret[at + 1 :]))


ALLOWED: list[tuple[Role, Action, bool]] = [
    ("infer", Action.PROBE, True),
    ("infer", Action.READ, True),
    ("infer", Action.INFER, True),
    ("infer", Action.ADMINISTER, False),
    ("infer", Action.METRICS, False),
    ("admin", Action.READ, True),
    ("admin", Action.INFER, False),
    ("admin", Action.ADMINISTER, True),
    ("admin", Action.METRICS, True),
    ("metrics", Action.READ, True),
    ("metrics", Action.INFER, False),
    ("metrics", Action.ADMINISTER, False),
    ("metrics", Action.METRICS, True),
]


@pytest.mark.parametrize(("role", "action", "allowed"), ALLOWED)
def test_a_role_may_do_what_the_table_says(role: Role, action: Action, allowed: bool) -> None:
    key, _ = new_key((role,), ("linear", "simple"))
    assert _may(key, action, "linear") is allowed
    assert not _may(key, action, "other")


@pytest.mark.parametrize("role", ROLES)
def test_a_key_for_all_models_is_for_any(role: Role) -> None:
    assert _may(new_key((role,), ("*",))[0], Action.READ, "whatever")


def test_the_whole_server_is_administered_only_with_a_key_for_all_models() -> None:
    assert not _may(new_key(("admin",), ("linear",))[0], Action.ADMINISTER, "")
    assert _may(new_key(("admin",), ("*",))[0], Action.ADMINISTER, "")


def test_a_known_caller_who_may_not_is_denied_and_told_what_he_lacks() -> None:
    key, _ = new_key(("metrics",), ("linear",))
    with pytest.raises(AccessError, match="infer") as refused:
        check_allowed(key, Action.INFER, "linear")
    assert code_of(refused.value) == "PERMISSION_DENIED"


def test_keys_are_read_again_when_the_file_changes(path: Path) -> None:
    clock = Clock()
    first, first_secret = new_key(("infer",), ("*",))
    second, second_secret = new_key(("infer",), ("*",))
    access = Access(written(path, first), clock=clock)
    written(path, second)
    assert access.identify(caller(first_secret)) == first
    clock.now_s += RECHECK_S
    assert access.identify(caller(second_secret)) == second
    assert not access.still_valid(first)
    with pytest.raises(AccessError, match="not known"):
        access.identify(caller(first_secret))


@pytest.mark.parametrize("damage", ["", "{", '{"schema": "other/1"}', "gone"])
def test_a_broken_file_leaves_the_keys_of_before_and_is_told_of_once(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    key, secret = new_key(("infer",), ("*",))
    access = Access(written(path, key), clock=clock)
    if damage == "gone":
        path.unlink()
    else:
        path.write_text(damage)
    for _ in range(3):
        clock.now_s += RECHECK_S
        assert access.identify(caller(secret)) == key
    assert len([record for record in caplog.records if "go on counting" in record.message]) == 1
    written(path, key, new_key(("admin",), ("*",))[0])
    clock.now_s += RECHECK_S
    assert access.identify(caller(secret)) == key


def test_an_expired_key_is_refused_and_says_so(path: Path) -> None:
    past = (datetime.now(timezone.utc) - timedelta(seconds=1)).isoformat()
    key, secret = new_key(("infer",), ("*",), expires=past)
    access = Access(written(path, key))
    with pytest.raises(AccessError, match="expired"):
        access.identify(caller(secret))
    assert not access.still_valid(key)


def test_what_is_no_access_file_is_refused(path: Path) -> None:
    with pytest.raises(NotFoundError, match="no access file"):
        read_access_file(path)
    key = json.loads(json.dumps({"id": "0123456789", "sha256": "0" * 64, "roles": ["infer"], "models": ["*"]}))
    for broken in (
        {"schema": "tidegate.access/1", "keys": [key]},
        {"schema": "tidegate.access/1", "keys": [key | {"created": "2026", "secret": "x"}]},
        {"schema": "tidegate.access/1", "keys": [key | {"created": "2026", "roles": ["root"]}]},
        {"schema": "tidegate.access/1", "keys": [key | {"created": "2026", "roles": []}]},
        {"schema": "tidegate.access/1", "keys": [key | {"created": "2026", "sha256": "0"}]},
        {"schema": "tidegate.access/1", "keys": [key | {"created": "2026", "expires": "soon"}]},
        {"schema": "tidegate.access/1", "keys": [key | {"created": "2026"}] * 2},
    ):
        path.write_text(json.dumps(broken))
        with pytest.raises(ConfigError):
            read_access_file(path)


def test_writing_keeps_the_permissions_that_the_file_has(path: Path) -> None:
    written(path)
    path.chmod(0o640)
    written(path, new_key(("infer",), ("*",))[0])
    assert path.stat().st_mode & 0o777 == 0o640


def test_authorization_counts_before_the_api_key() -> None:
    assert shown_secret({"authorization": "bearer a", "x-api-key": "b"}) == "a"


@pytest.mark.parametrize("method", [method.name for service in (OPEN_INFERENCE, SPEECH) for method in service.methods])
def test_every_method_is_classified_or_one_of_the_commands(method: str) -> None:
    commands = ("Load", "Unload", "Register", "Unregister", "Status", "TraceSetting")
    assert method in ACTION_BY_METHOD or method.endswith(commands)
    assert action_of(method) is ACTION_BY_METHOD.get(method, Action.ADMINISTER)


def _may(key: Key, action: Action, model: str) -> bool:
    try:
        check_allowed(key, action, model)
    except AccessError:
        return False
    return True
