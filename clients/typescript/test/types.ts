/** Right use of the package, and wrong: the type checker accepts the one and reports the other. */

import { CeqsError, Client, type Answer, type Event } from "@ceqs/client";

interface PlaceOrderResponse {
  receipt: { position: string; token: string };
}

interface OrderAccepted {
  orderId: string;
}

export async function shop(client: Client): Promise<string> {
  const placed = await client.command<PlaceOrderResponse>("PlaceOrder", { orderId: "1" }, { commandId: "c" });
  // @ts-expect-error: there is no such field
  placed.receipt.positoin;
  // @ts-expect-error: a command is not asked as of a moment
  await client.command("PlaceOrder", { orderId: "1" }, { asOf: placed.receipt.token });
  // @ts-expect-error: a position is no token
  await client.query("GetOrder", { orderId: "1" }, { atLeast: 7 });
  const answer: Answer<{ order: { status: string } }> = await client.query("GetOrder", { orderId: "1" });
  for await (const event of client.events<OrderAccepted>({ scope: "public", after: 0 })) {
    const heard: Event<OrderAccepted> = event;
    // @ts-expect-error: the message may be unknown to this client
    heard.message.orderId;
    return heard.message?.orderId ?? answer.message.order.status;
  }
  throw new Error("it ended");
}

export function reason(error: unknown): string {
  return error instanceof CeqsError ? error.reason : "";
}
