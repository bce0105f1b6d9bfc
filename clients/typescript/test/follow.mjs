/**
 * Follows the public events of orders, and places an order when it is told to by a line on its standard input:
 * `follow.mjs ADDRESS PROTO ORDER`. Prints each order that is accepted, as JSON, up to its own.
 */

import { once } from "node:events";
import { Client } from "@ceqs/client";

const [address, proto, orderId] = process.argv.slice(2);
const files = ["commands", "public_events"].map((name) => `shop/orders/v1/${name}.proto`);
const client = new Client(address, { directories: [proto], files, timeout: 60_000 });

async function place() {
  await once(process.stdin, "data");
  process.stdin.destroy();
  const line = { productCode: "A", quantity: 1, unitPriceMicros: 1 };
  await client.command("PlaceOrder", { orderId, country: "Finland", lines: [line] });
}

const placed = place();
for await (const event of client.events({ types: ["shop.orders.v1.OrderAccepted"] })) {
  console.log(JSON.stringify({ order: event.message.orderId, position: event.publicPosition }));
  if (event.message.orderId === orderId) break;
}
await placed;
client.close();
