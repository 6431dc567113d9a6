"""Streams on uvloop's event loop beside its Protocols: `uvloop_streams_net.py NAME N`."""

import asyncio_net
import served
import uvloop

if __name__ == "__main__":
    served.main({}, asyncio_net.streams(uvloop.run))
