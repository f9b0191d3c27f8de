"""Several programs at a time, each in a microVM of its own: `.venv/bin/python examples/many.py`."""

import asyncio

from mayfly import AsyncRunner


async def main() -> None:
    """Run four programs together and print what each wrote."""
    async with AsyncRunner(timeout_s=20) as runner:
        programs = [f"import random\nprint({number}, random.random())" for number in range(4)]
        for execution in await asyncio.gather(*(runner.run(program) for program in programs)):
            print(execution.stdout.strip())


asyncio.run(main())
