"""Stand-ins for tests: a launcher whose machines are plain processes on this host, and says so."""

from mayfly.testing.launcher import FakeLauncher, FakeMachine, Faults

__all__ = ["FakeLauncher", "FakeMachine", "Faults"]
