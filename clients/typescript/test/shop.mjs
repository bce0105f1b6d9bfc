/**
 * Shops, by this package: `shop.mjs ADDRESS PROTO ORDER`. Prints what happened as JSON, for the test that runs it.
 */

import { CeqsError, Client } from "@ceqs/client";

const [address, proto, orderId] = process.argv.slice(2);
const files = ["commands", "queries", "public_events"].map((name) => `shop/orders/v1/${name}.proto`);
const client = new Client(address, { directories: [proto], files, context: "orders", actor: "node", timeout: 60_000 });

async function refused(call) {
  try {
    await call;
    return null;
  } catch (error) {
    if (!(error instanceof CeqsError)) throw error;
    const { code, reason, violations } = error;
    return { code, reason, violations };
  }
}

const request = {
  orderId,
  customerId: "node",
  country: "Finland",
  lines: [{ productCode: "A", quantity: 2, unitPriceMicros: 1_500_000 }],
};
const placed = await client.command("PlaceOrder", request, { commandId: `${orderId} by node` });
const again = await client.command("PlaceOrder", request, { commandId: `${orderId} by node` });
const state = await client.query("GetOrder", { orderId });
const sales = await client.query("GetSales", { top: 1 });
const then = await client.query("GetOrder", { orderId }, { asOf: placed.receipt.token });
const twice = await refused(client.command("PlaceOrder", request));
const malformed = await refused(client.command("PlaceOrder", { orderId: "2", lines: request.lines.concat({}) }));
const unknown = await refused(client.query("GetOrder", { orderId: "nobody's" }));

let watched;
for await (watched of client.watch("WatchOrder", { orderId })) break;

let accepted;
for await (const event of client.events({ tags: [`order:${orderId}`] })) {
  accepted = { ...event, payload: Buffer.from(event.payload).toString("hex") };
  break;
}
client.close();
console.log(JSON.stringify({ placed, again, state, sales, then, twice, malformed, unknown, watched, accepted }));
