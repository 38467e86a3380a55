"""The server process and how it stops: readiness falls, the listener closes, accepted requests are answered."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.http.connections import limited_protocol
from service.runtime import Engine
from service.settings import Settings

_STOP_SECONDS = 8  # for accepted requests, after the listener has closed: an idle process ends within 10 s of SIGTERM
MODEL_FAILED = 70  # exit status: a supervisor should restart the process
_FLUSH_SECONDS = 1.0  # for the responses of accepted requests, after the model thread has failed
_LOG = logging.getLogger(__name__)


class DrainingServer(uvicorn.Server):
    """A server that stops as a load balancer needs it, with an exit status that says why."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        config = uvicorn.Config(
            app, host=settings.host, port=settings.port, http=limited_protocol(settings), ws="none", access_log=False,
            log_config=None, server_header=False, proxy_headers=False, timeout_graceful_shutdown=_STOP_SECONDS,
        )  # fmt: skip
        super().__init__(config)
        self.status = 0
        self._engine: Engine = app.state.engine
        self._drain_seconds = settings.drain_seconds
        app.state.on_failure = self._model_failed

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and log the address: from here on requests are answered."""
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        _LOG.info("ready url=%r", url, extra={"fields": {"url": url}})

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop being ready at the first signal, and listening some seconds later; a second signal does not wait."""
        if self._engine.is_draining or sig == signal.SIGINT:
            self.should_exit = True
            return
        self._engine.is_draining = True
        _LOG.info("draining seconds=%g", self._drain_seconds)
        asyncio.get_running_loop().call_later(self._drain_seconds, self._close)

    def _close(self) -> None:
        self.should_exit = True

    def _model_failed(self) -> None:
        self.status = MODEL_FAILED
        _LOG.critical("the model failed; the process ends with status %d", MODEL_FAILED)
        # The model thread may be in a call that never returns: nothing may wait for it.
        asyncio.get_running_loop().call_later(_FLUSH_SECONDS, os._exit, MODEL_FAILED)
