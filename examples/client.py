"""Runs programs from Python, on your side of the wall: `.venv/bin/python examples/client.py`."""

from mayfly import InvalidRequestError, run

execution = run("print(6 * 7)")
print(execution.status, execution.stdout.strip())

execution = run("raise ValueError('no')", timeout_s=10)
print(execution.status, execution.exit_code, execution.stderr.splitlines()[-1])

execution = run("while True: pass", timeout_s=1)
print(execution.status, execution.exit_code)

execution = run("print(")
print(execution.status, execution.scan and execution.scan.findings[0].message)

try:
    run("print(1)", mem_mib=1)
except InvalidRequestError as error:
    print(error)
