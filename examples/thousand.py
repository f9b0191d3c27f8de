"""A thousand programs, as many at a time as the node takes: `.venv/bin/python examples/thousand.py [HOW_MANY]`."""

import asyncio
import sys
from collections import Counter

from mayfly import AsyncRunner, CapacityError


async def main(how_many: int) -> None:
    """Run them, wait where the node is full, and count how they ended."""
    ends: Counter[str] = Counter()
    async with AsyncRunner(timeout_s=60) as runner:
        places = asyncio.Semaphore(64)

        async def one(number: int) -> None:
            async with places:
                while True:
                    try:
                        execution = await runner.run(f"print({number} ** 2)")
                        break
                    except CapacityError as full:  # its queue is full, too
                        await asyncio.sleep(full.retry_after_s)
            ends[execution.status] += 1

        async with asyncio.TaskGroup() as tasks:
            for number in range(how_many):
                tasks.create_task(one(number))
    print(dict(ends))


asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
