"""The workloads of asyncio_net.py on uvloop's event loop: `uvloop_net.py NAME N`."""

import asyncio_net
import uvloop

if __name__ == "__main__":
    asyncio_net.main(uvloop.run)
