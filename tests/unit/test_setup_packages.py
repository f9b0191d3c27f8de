from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from mayfly.errors import SetupError
from mayfly.images import packages
from mayfly.images.packages import Need, install_packages, missing_needs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BISON = Need("no-such-bison", "bison", ("kernel",))
BC = Need("no-such-bc", "bc", ("kernel",))


class Apt:
    """Stands for apt-get: notes what it is asked, and may fail."""

    def __init__(self, failures: int = 0, words: str = "Unable to locate package") -> None:
        self.calls: list[str] = []
        self.failures = failures
        self.words = words

    def __call__(self, argv: Sequence[str], **_: object) -> str:
        words = [word for word in argv if word in {"install", "update", "sudo", "true", "bison", "bc"}]
        self.calls.append(" ".join(words))
        if self.failures:
            self.failures -= 1
            raise SetupError(self.words)
        return ""


def on_machine(
    monkeypatch: pytest.MonkeyPatch, apt: Apt, *, uid: int = 0, tools: tuple[str, ...] = ("apt-get",)
) -> None:
    monkeypatch.setattr(packages, "run_tool", apt)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/bin/{name}" if name in tools else None)


def found_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Need, "found", lambda _: True)


def test_nothing_is_run_when_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    apt = Apt()
    on_machine(monkeypatch, apt)
    install_packages([])
    assert apt.calls == []


def test_packages_are_installed_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    apt = Apt()
    on_machine(monkeypatch, apt)
    found_after(monkeypatch)
    install_packages([BISON, BC, BC])
    assert apt.calls == ["install bc bison"]


def test_lists_are_updated_once_when_installing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    apt = Apt(failures=1)
    on_machine(monkeypatch, apt)
    found_after(monkeypatch)
    install_packages([BC])
    assert apt.calls == ["install bc", "update", "install bc"]


def test_an_update_waits_for_that_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    apt = Apt(failures=3, words="E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)")
    on_machine(monkeypatch, apt)
    found_after(monkeypatch)
    monkeypatch.setattr(packages, "_LOCK_PAUSE_S", 0.0)
    install_packages([BC])
    assert apt.calls == ["install bc", "update", "update", "update", "install bc"]


def test_a_lock_that_is_never_released_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, Apt(failures=1000, words="E: Could not get lock /var/lib/apt/lists/lock"))
    monkeypatch.setattr(packages, "_LOCK_PAUSE_S", 0.0)
    monkeypatch.setattr(packages, "_APT_LOCK_S", 0.0)
    with pytest.raises(SetupError, match=r"could not install bc: .*Could not get lock"):
        install_packages([BC])


def test_plain_user_installs_through_sudo_that_does_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    apt = Apt()
    on_machine(monkeypatch, apt, uid=1000, tools=("apt-get", "sudo"))
    found_after(monkeypatch)
    install_packages([BC])
    assert apt.calls == ["sudo true", "sudo install bc"]


@pytest.mark.parametrize(
    ("tools", "told"),
    [
        (("apt-get",), "as root: apt-get install --no-install-recommends bc bison"),
        (("apt-get", "sudo"), "run `sudo apt-get install --no-install-recommends bc bison`, then the same again"),
    ],
)
def test_plain_user_without_rights_is_told_the_command(
    monkeypatch: pytest.MonkeyPatch, tools: tuple[str, ...], told: str
) -> None:
    on_machine(monkeypatch, Apt(failures=1), uid=1000, tools=tools)
    with pytest.raises(SetupError, match=told):
        install_packages([BISON, BC])


def test_system_without_apt_is_told_the_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, Apt(), tools=())
    with pytest.raises(SetupError, match=r"no apt-get .*: no-such-bison, no-such-bc .*package manager"):
        install_packages([BISON, BC])


def test_lasting_failure_names_packages_and_command(monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, Apt(failures=9))
    with pytest.raises(SetupError, match=r"could not install bc: .*Unable to locate.*as root: apt-get install"):
        install_packages([BC])


def test_tool_that_did_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, Apt())
    with pytest.raises(SetupError, match=r"still not there: no-such-bc \(package bc\)"):
        install_packages([BC])


def test_needs_are_found_by_the_thing_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Need("tool", "x", ("node",)).found()
    assert Need(str(tmp_path / "tool"), "x", ("node",)).found()
    assert not Need(str(tmp_path / "absent"), "x", ("node",)).found()


def test_only_what_the_purposes_need_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Need, "found", lambda _: False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert {need.package for need in missing_needs({"node"})} == {"squashfs-tools"}
    assert "qemu-system-x86" in {need.package for need in missing_needs({"emulated"})}
    assert "gcc" not in {need.package for need in missing_needs({"node", "emulated", "images"})}
    assert "uidmap" not in {need.package for need in missing_needs({"images"})}
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "uidmap" in {need.package for need in missing_needs({"images"})}
