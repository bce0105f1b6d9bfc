/**
 * Hears another service's public events with nothing of ceqs: the nats package, protobufjs and the .proto files.
 *
 * `consumer.mjs NATS_URL PROTO TYPE` prints the first event of the type, headers and body, as JSON.
 */

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { connect, consumerOpts } from "nats";
import protobuf from "protobufjs";

const [url, proto, wanted] = process.argv.slice(2);
const root = new protobuf.Root();
const google = dirname(createRequire(import.meta.url).resolve("protobufjs/package.json"));
root.resolvePath = (_, target) => [proto, google].map((directory) => join(directory, target)).find(existsSync);
root.loadSync("shop/orders/v1/public_events.proto");

const connection = await connect({ servers: url });
const messages = await connection.jetstream().subscribe("ceqs.orders.public.>", consumerOpts().orderedConsumer());
for await (const message of messages) {
  const headers = {};
  for (const [name, values] of message.headers) headers[name] = decodeURIComponent(values[0]);
  if (headers["ce-type"] !== wanted) continue;
  const type = root.lookupType(headers["ce-type"]);
  const event = type.toObject(type.decode(message.data), { longs: String });
  console.log(JSON.stringify({ headers, event, sequence: message.seq }));
  break;
}
await connection.close();
