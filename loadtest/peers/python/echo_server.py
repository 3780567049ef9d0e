"""A server as in introductions to multi-processing: one process for each accepted connection.

Each process reads up to 1 KiB of text, answers "Echo: " and the same text, and ends when the client sends "quit" or
disconnects. There are no rooms and no messages: the text of one read is answered at once, and only its sender
receives the answer.
"""

import json
import multiprocessing
import os
import signal
import socket
import sys

READ_BYTES = 1024
BACKLOG = 1024


def serve_client(connection: socket.socket) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with connection:
        while data := connection.recv(READ_BYTES):
            text = data.decode()
            if text.strip().endswith("quit"):
                break
            connection.sendall(f"Echo: {text}".encode())


def main() -> None:
    # An orderly stop by SIGTERM. The clients' processes are daemons and end with this one. The load generator blocks
    # its signals, and its children inherit that.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(0))
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    fork = multiprocessing.get_context("fork")
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(BACKLOG)
        host, port = listener.getsockname()
        version = f"Python {sys.version.split()[0]}"
        ready = {"event": "ready", "game": f"{host}:{port}", "pid": os.getpid(), "version": version}
        print(json.dumps(ready), flush=True)
        while True:
            connection, _address = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            process = fork.Process(target=serve_client, args=(connection,), daemon=True)
            # This also reaps processes that have ended.
            process.start()
            connection.close()


if __name__ == "__main__":
    main()
