// Rooms on Colyseus that relay every message, as bytes, to all of their members, as Forkade's game "relay" does.
//
// They use the fastest settings of Colyseus: no state to synchronise (so no patches twenty times a second), messages as
// bytes (so no msgpack), and no logging.

import { Room, Server } from "@colyseus/core";
import { WebSocketTransport } from "@colyseus/ws-transport";

/** The only type of message. */
const MESSAGE = 0;

class RelayRoom extends Room {
  maxClients = 255;
  patchRate = null;

  onCreate() {
    this.onMessageBytes(MESSAGE, (_client, bytes) => this.broadcastBytes(MESSAGE, bytes));
  }
}

const transport = new WebSocketTransport({ maxPayload: 16 * 1024 });
const server = new Server({ transport, greet: false });
server.define("relay", RelayRoom);
await server.listen(0, "127.0.0.1", 1024);

const { address, port } = transport.server.address();
console.log(JSON.stringify({ event: "ready", game: `${address}:${port}`, pid: process.pid, version: process.version }));
