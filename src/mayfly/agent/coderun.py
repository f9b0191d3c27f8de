"""One run of code in a context, as a connection carries it."""

from __future__ import annotations

import time

from mayfly.agent.fields import RequestError, bad, environment, number, optional_number, text
from mayfly.guest.frames import FrameType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mayfly.agent.connection import Connection
    from mayfly.agent.contexts import Context
    from mayfly.guest.frames import Frame

__all__ = ["CodeRun"]

_CODE_MAX_BYTES = 1 << 20
_ITEMS_MAX = 1000
_FIGURE_FORMATS = ("png", "svg", "jpeg", "pdf")
_STREAMS = {"stdout": FrameType.STDOUT, "stderr": FrameType.STDERR}


class CodeRun:
    """Bounds and passes on what the context says, until its end. See the operation `run` for the fields."""

    def __init__(self, connection: Connection, context: Context, shape: dict[str, Any]) -> None:
        self._connection = connection
        self._context = context
        self.nonce = text(shape, "nonce", 128)
        self.code = text(shape, "code", _CODE_MAX_BYTES)
        self.timeout_s = optional_number(shape, "timeout_s", 0, 7 * 86400)
        self.env = environment(shape)
        self.output_bytes = int(number(shape, "output_bytes", 0, 1 << 40))
        self.result_bytes = int(number(shape, "result_bytes", 0, 1 << 30))
        self.item_bytes = int(number(shape, "item_bytes", 0, 1 << 30))
        self.figure_formats = shape.get("figure_formats", ["png"])
        if not isinstance(self.figure_formats, list) or not all(f in _FIGURE_FORMATS for f in self.figure_formats):
            raise bad("figure_formats", f"a list of {', '.join(_FIGURE_FORMATS)}")
        self.reason = ""
        """Why it is being ended from outside: `timeout` or `interrupted`."""
        self.gone = False
        """Nobody listens any more."""
        self._seen = {"stdout": 0, "stderr": 0}
        self._items = 0
        self._item_bytes = 0
        self._skips = False
        self._head: dict[str, object] | None = None  # of an item of which nothing has come yet
        self._truncated = False
        self._started_at = 0.0
        self._cpu_base_us = 0

    # -- from the connection -------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Never: nothing long comes from the host any more."""
        return False

    def frame(self, frame: Frame) -> None:
        """SIGNAL with SIGINT interrupts the code. Raises RequestError for anything else."""
        if frame.type != FrameType.SIGNAL or frame.json().get("signal") != "SIGINT":
            raise RequestError("bad_request", "only SIGNAL with SIGINT may follow the request of a run")
        self._context.interrupt(self.nonce)

    def resume_output(self) -> None:
        """Takes what the context has to say again."""
        self._context.resume()

    def abort(self) -> None:
        """Interrupts the code, by force if need be, since nobody wants it."""
        if not self.gone:
            self.gone = True
            self._context.abandon(self)

    # -- from the context ----------------------------------------------------------------------------------

    @property
    def congested(self) -> bool:
        """Whether the context should not be listened to for now."""
        return not self.gone and self._connection.congested

    def begin(self, cpu_us: int) -> None:
        """The context is about to be told: its time runs. `cpu_us`: what it has used of processors before."""
        self._cpu_base_us = cpu_us
        self._started_at = time.monotonic()

    def started(self, pid: int) -> None:
        """The context has been told."""
        self._connection.send(FrameType.STARTED, {"nonce": self.nonce, "pid": pid})

    def output(self, stream: str, data: bytes) -> None:
        """A piece of output; what is beyond the limit is counted and dropped."""
        room = self.output_bytes - self._seen[stream]
        self._seen[stream] += len(data)
        self._truncated = self._truncated or len(data) > room
        if room > 0 and not self.gone:
            self._connection.send(_STREAMS[stream], data[:room])

    def item(self, kind: str, size: int) -> None:
        """A result or an error of `size` bytes begins; one beyond the limits is dropped."""
        self._items += 1
        self._item_bytes += size
        beyond = kind == "result" and self._item_bytes > self.result_bytes + (1 << 20)
        self._skips = self.gone or self._items > _ITEMS_MAX or beyond
        self._truncated = self._truncated or self._skips
        self._head = None if self._skips else {"kind": kind, "bytes": size}

    def item_data(self, data: bytes) -> None:
        """A piece of it."""
        if self._skips or self.gone:
            return
        head, self._head = self._head, None
        if head is None:
            self._connection.send(FrameType.DATA, data)
        else:
            self._connection.send_together((FrameType.ITEM, head), (FrameType.DATA, data))

    def end(self, report: dict[str, object], *, cpu_us: int, mem_peak_bytes: int) -> None:
        """Reports the end: `status`, `execution_count`, `state_lost`, and so on; and closes."""
        if self.gone:
            return
        self.gone = True
        wall_s = time.monotonic() - self._started_at if self._started_at else 0.0
        usage = {
            "wall_ms": round(wall_s * 1000, 3),
            "cpu_ms": round(max(cpu_us - self._cpu_base_us, 0) / 1000, 3),
            "mem_peak_bytes": mem_peak_bytes,
            "stdout_bytes": self._seen["stdout"],
            "stderr_bytes": self._seen["stderr"],
        }
        truncated = self._truncated or report.get("truncated") is True
        self._connection.send(FrameType.END, {**report, "nonce": self.nonce, "truncated": truncated, "usage": usage})
        self._connection.finish()

    def fail(self, code: str, why: str) -> None:
        """It cannot be begun."""
        if not self.gone:
            self.gone = True
            self._connection.fail(code, why)
