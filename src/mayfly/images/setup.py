"""Set-up: every artefact that running programs needs, made in order, each only when it is missing.

There is no record of progress beside the artefacts themselves: a set-up that was interrupted, however hard, is
continued by running it again.
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mayfly.errors import DiskFullError, SetupError
from mayfly.host.locks import lock_file, try_lock
from mayfly.images import emulated as emulated_host
from mayfly.images import firecracker, guest, kernel
from mayfly.images.packages import install_packages, missing_needs
from mayfly.images.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mayfly.host.paths import StatePaths
    from mayfly.images.packages import Purpose
    from mayfly.images.progress import Reporter, Step
    from mayfly.images.store import Entry

__all__ = ["SetupPlan", "SetupStep", "make_plan", "run_setup"]

_LOCK_TIMEOUT_S = 3 * 3600.0


@dataclass(frozen=True)
class SetupStep:
    """One thing to have: `there` says why nothing need be done (None: something must), `make` does it.

    `purpose` names the tools that `make` needs.
    """

    name: str
    there: Callable[[], str | None]
    make: Callable[[Step], None]
    purpose: Purpose | None = None


@dataclass(frozen=True)
class SetupPlan:
    """The steps in their order, and what the finished machine needs beside them."""

    steps: tuple[SetupStep, ...]
    purposes: frozenset[Purpose]

    def needed(self) -> frozenset[Purpose]:
        """Everything that tools are needed for: running, and making what is missing."""
        making = {step.purpose for step in self.steps if step.purpose is not None and step.there() is None}
        return self.purposes | making


def make_plan(
    store: Store, *, kernel_path: Path | None, emulated: bool, verify: bool = False, images: Sequence[str] = ()
) -> SetupPlan:
    """What set-up has to see to. With `verify` every stored byte is hashed, otherwise sizes and times are looked at.

    `images` are guest images beside `python`. SetupError for a name that is none.
    """
    steps = [
        SetupStep("Firecracker", lambda: None, lambda step: _firecracker(store, step)),
        _kernel_step(store, kernel_path, verify=verify),
        _image_step(store, "python", verify=verify),
        *(_image_step(store, name, verify=verify) for name in dict.fromkeys(images) if name != "python"),
    ]
    purposes: set[Purpose] = {"node"}
    if emulated:
        purposes.add("emulated")
        wanted = emulated_host.emulated_host_key(emulated_host.runtime_packages())
        steps.append(
            SetupStep(
                "Emulated host",
                lambda: _there(store, emulated_host.KIND, _has_key(wanted), verify=verify),
                lambda step: _report_size(step, emulated_host.build_emulated_host(store, step=step)),
                "images",
            )
        )
    return SetupPlan(tuple(steps), frozenset(purposes))


def run_setup(
    paths: StatePaths,
    reporter: Reporter,
    *,
    kernel: Path | None = None,
    emulated: bool,
    verify: bool = False,
    images: Sequence[str] = (),
) -> None:
    """Make everything that is missing in the state directory. Blocking, for minutes the first time.

    `kernel` is a guest kernel from outside; `emulated` asks for the emulated host's image too; `verify` hashes what
    is there; `images` are guest images beside `python`. A second set-up of the same directory waits for the first.
    SetupError and its kin say what failed; what was made until then is kept.
    """
    paths.make()
    store = Store(paths)
    with ExitStack() as stack:
        _take_lock(stack, paths.run / "setup.lock", reporter)
        plan = make_plan(store, kernel_path=kernel, emulated=emulated, verify=verify, images=images)
        with reporter.step("System packages") as step:
            needs = missing_needs(plan.needed())
            if needs:
                install_packages(needs, step=step)
            else:
                step.skip("already there")
        for item in plan.steps:
            _run(item, reporter, paths)


def _run(item: SetupStep, reporter: Reporter, paths: StatePaths) -> None:
    with reporter.step(item.name) as step:
        why = item.there()
        if why is not None:
            step.skip(why)
            return
        try:
            item.make(step)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFullError(f"no space left in {paths.root}") from error
            raise SetupError(f"{item.name}: {error}") from error


def _take_lock(stack: ExitStack, path: Path, reporter: Reporter) -> None:
    descriptor = try_lock(path)
    if descriptor is not None:
        stack.callback(os.close, descriptor)
        return
    reporter.note("another set-up of this state directory is running; waiting for it to end")
    try:
        stack.enter_context(lock_file(path, timeout_s=_LOCK_TIMEOUT_S))
    except TimeoutError as error:
        raise SetupError("another set-up of this state directory does not end", retryable=True) from error


def _firecracker(store: Store, step: Step) -> None:
    """Its own step each time: the stored binaries are hashed, and a pair on PATH may have changed."""
    before = _current(store, firecracker.KIND)
    entry = firecracker.install_firecracker(store, refuse=_refuse, step=step)
    text = f"{entry.meta.get('version', '?')} from {entry.meta.get('source', '?')}"
    if before is not None and before.key == entry.key:
        step.skip(f"already there: {text}")
    else:
        step.result(text)


def _refuse(version: str) -> str | None:
    from mayfly.vmm.versions import check_version, parse_version

    try:
        check_version(parse_version(version))
    except SetupError as error:
        return error.message
    return None


def _kernel_step(store: Store, path: Path | None, *, verify: bool) -> SetupStep:
    if path is not None:
        return SetupStep("Guest kernel", lambda: None, lambda step: _outside_kernel(store, path, step))
    return SetupStep(
        "Guest kernel",
        lambda: _there(store, kernel.KIND, kernel.is_current_kernel, verify=verify),
        lambda step: _report_version(step, kernel.build_kernel(store, step=step)),
        "kernel",
    )


def _image_step(store: Store, name: str, *, verify: bool) -> SetupStep:
    kind = guest.image_kind(name)
    return SetupStep(
        "Guest image" if name == "python" else f"Guest image {name}",
        lambda: _there(store, kind, _has_key(guest.guest_image_key(name)), verify=verify),
        lambda step: _report_size(step, guest.build_guest_image(store, name, step=step)),
        "images",
    )


def _outside_kernel(store: Store, path: Path, step: Step) -> None:
    before = _current(store, kernel.KIND)
    entry = kernel.install_kernel(store, path)
    if before is not None and before.key == entry.key:
        step.skip("already there")
    else:
        _report_version(step, entry)


def _there(store: Store, kind: str, good: Callable[[Entry], bool], *, verify: bool) -> str | None:
    if not verify:
        entry = _current(store, kind)
    else:
        try:
            entry = store.verified(kind)
        except SetupError:
            entry = None
    return "already there" if entry is not None and good(entry) else None


def _current(store: Store, kind: str) -> Entry | None:
    """The current entry, or None when there is none that can be used."""
    try:
        return store.current(kind)
    except SetupError:
        return None


def _has_key(key: str) -> Callable[[Entry], bool]:
    return lambda entry: entry.key == key


def _report_size(step: Step, entry: Entry) -> None:
    step.result(f"{entry.size / 1e6:.0f} MB")


def _report_version(step: Step, entry: Entry) -> None:
    step.result(f"{entry.meta.get('version', '?')}, {entry.size / 1e6:.0f} MB")
