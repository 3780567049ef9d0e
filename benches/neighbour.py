#!/usr/bin/env python3
"""How long a neighbour waits for its pong while one client fills their process with searches.

A server with all clients in one handler (--clients-per-handler 256) holds ROOMS rooms, each with one player. One client
pipelines ListRooms with a filter that matches none, as fast as the server takes them; a neighbour in the same process
pings. Printed: the neighbour's latencies for each run, their median over the runs, and how often the watchdog killed.

    benches/neighbour.py target/release/forkade [--rooms 1000] [--runs 5] [--seconds 5]
"""

import argparse
import json
import select
import socket
import statistics
import struct
import subprocess
import threading
import time

PREAMBLE = b"\xf7FKD" + struct.pack("<HH", 1, 1)
LIST_ROOMS, CREATE_ROOM, PING = 2, 3, 13


def number(value):
    """An integer in bincode's standard configuration."""
    if value < 251:
        return bytes([value])
    if value < 1 << 16:
        return b"\xfb" + struct.pack("<H", value)
    if value < 1 << 32:
        return b"\xfc" + struct.pack("<I", value)
    return b"\xfd" + struct.pack("<Q", value)


def text(value):
    encoded = value.encode()
    return number(len(encoded)) + encoded


def frame(body):
    return struct.pack("<I", len(body)) + body


def ping(nonce):
    return frame(number(PING) + number(nonce))


def search(request):
    """A list of the rooms whose name contains a text that none has."""
    no, yes = b"\0", b"\1"
    room_filter = no + yes + text("no such room") + b"\0"
    return frame(number(LIST_ROOMS) + number(request) + room_filter + no)


def create_room(request, name):
    """A public room of the game `relay` with the default settings."""
    settings = b"\0" + b"\0" + number(0) + b"\0" + b"\0" + number(0)
    return frame(number(CREATE_ROOM) + number(request) + text("relay") + text(name) + settings)


class Client:
    def __init__(self, address, name):
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.socket.sendall(PREAMBLE + frame(number(0) + text(name) + text("neighbour.py")))
        self.answer()

    def answer(self):
        """The body of the next message."""
        while True:
            if len(self.received) >= 4:
                end = 4 + struct.unpack_from("<I", self.received)[0]
                if len(self.received) >= end:
                    body, self.received = self.received[4:end], self.received[end:]
                    return body
            received = self.socket.recv(65536)
            if not received:
                raise ConnectionError("the server has closed the connection")
            self.received += received


def attack(client, stop):
    """Sends searches as fast as they are taken, and discards the answers."""
    burst = b"".join(search(request) for request in range(200))
    client.socket.setblocking(False)
    unsent = b""
    while not stop.is_set():
        readable, writable, _ = select.select([client.socket], [client.socket], [], 0.1)
        try:
            if readable and not client.socket.recv(1 << 16):
                return
            if writable:
                unsent = unsent or burst
                unsent = unsent[client.socket.send(unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            return


def status(console, key):
    with socket.create_connection(console) as connection:
        connection.sendall(b"status --json\n")
        reply = connection.makefile().readline()
    return json.loads(reply)[key]


def run(program, rooms, seconds):
    arguments = [program, "serve", "--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"]
    arguments += ["--clients-per-handler", "256", "--handler-life", "1000000", "--log", "error"]
    arguments += ["--rooms-max", str(rooms + 1), "--players-max", str(rooms + 200)]
    arguments += ["--requests-per-minute", "0"]
    server = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    try:
        ready = json.loads(server.stdout.readline())
        address, console = (
            (host, int(port)) for host, port in (ready[key].rsplit(":", 1) for key in ("game", "console"))
        )
        hosts = []
        for index in range(rooms):
            host = Client(address, f"Host {index}")
            host.socket.sendall(create_room(1, f"Somewhere else {index}"))
            host.answer()
            hosts.append(host)
        # The last to come are served by the last handler.
        attacker, neighbour = Client(address, "Attacker"), Client(address, "Neighbour")
        stop = threading.Event()
        attacking = threading.Thread(target=attack, args=(attacker, stop))
        attacking.start()
        latencies_ms, until = [], time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.perf_counter()
            neighbour.socket.sendall(ping(len(latencies_ms)))
            neighbour.answer()
            latencies_ms.append(1000 * (time.perf_counter() - began))
            time.sleep(0.01)
        stop.set()
        attacking.join()
        latencies_ms.sort()
        at = lambda share: latencies_ms[min(int(share * len(latencies_ms)), len(latencies_ms) - 1)]
        kills = status(console, "watchdog_kills_total")
        return at(0.5), at(0.99), latencies_ms[-1], len(latencies_ms), kills
    finally:
        server.terminate()
        server.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the server's binary")
    parser.add_argument("--rooms", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    results = []
    for number_of_run in range(1, options.runs + 1):
        result = run(options.program, options.rooms, options.seconds)
        results.append(result)
        p50, p99, worst, pings, kills = result
        print(f"run {number_of_run}: {pings} pings, p50 {p50:.2f} p99 {p99:.2f} max {worst:.2f} ms, {kills} kills", flush=True)
    p50, p99, worst = (statistics.median(column) for column in list(zip(*results))[:3])
    print(f"median: p50 {p50:.2f} p99 {p99:.2f} max {worst:.2f} ms")


if __name__ == "__main__":
    main()
