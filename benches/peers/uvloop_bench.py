"""The workloads of asyncio_bench.py on uvloop's event loop: `uvloop_bench.py WORKLOAD N`."""

import asyncio_bench
import uvloop

if __name__ == "__main__":
    asyncio_bench.main(uvloop.run)
