"""The workloads of asyncio_boundary.py on uvloop's event loop: `uvloop_boundary.py NAME N`."""

import asyncio_boundary
import uvloop

if __name__ == "__main__":
    asyncio_boundary.main(uvloop.run)
