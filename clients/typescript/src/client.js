/** A client of one context. */

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Client as Channel, Metadata, credentials } from "@grpc/grpc-js";
import { Contract, decode, encode } from "./contract.js";
import { CeqsError, errorOf } from "./errors.js";

const TIMEOUT = 10_000;
const FIRST_DELAY = 50;
const LONGEST_DELAY = 2_000;
const SUBSCRIBE = "/ceqs.v1.EventsService/Subscribe";

export class Client {
  #channel;
  #contract;
  #settings;
  #written = "";

  constructor(address, settings) {
    this.#settings = settings;
    this.#contract = new Contract(settings.directories, settings.files);
    this.#channel = new Channel(address, settings.credentials ?? credentials.createInsecure(), {
      "grpc.max_receive_message_length": -1,
    });
  }

  async command(rpc, request, { commandId = randomUUID(), timeout } = {}) {
    const metadata = this.#metadata({ "ceqs-command-id": commandId });
    const { message, trailers } = await this.#call(this.#contract.rpc(rpc), request, metadata, timeout);
    this.#note(text(trailers, "ceqs-token"));
    return message;
  }

  async query(rpc, request, { atLeast = this.#written, asOf, timeout } = {}) {
    const metadata = this.#metadata({ "ceqs-at-least": asOf ? "" : atLeast, "ceqs-as-of": asOf });
    const { message, trailers } = await this.#call(this.#contract.rpc(rpc), request, metadata, timeout);
    const recordedAt = text(trailers, "ceqs-recorded-at");
    return {
      message,
      token: text(trailers, "ceqs-token"),
      lag: Number(text(trailers, "ceqs-lag")),
      parked: Number(text(trailers, "ceqs-parked")),
      ...(recordedAt && { recordedAt: new Date(recordedAt) }),
    };
  }

  async *watch(rpc, request, { atLeast = this.#written, asOf } = {}) {
    const metadata = this.#metadata({ "ceqs-at-least": asOf ? "" : atLeast, "ceqs-as-of": asOf });
    yield* this.#stream(this.#contract.rpc(rpc), request, metadata);
  }

  async *events({ after = 0, scope = "public", types = [], tags = [], upcast = true } = {}) {
    const position = scope === "public" ? "publicPosition" : "position";
    let failures = 0;
    let at = BigInt(after);
    let heard = false;
    const began = Date.now();
    for (;;) {
      const request = {
        context: this.#settings.context,
        scope: `SCOPE_${scope.toUpperCase()}`,
        after: String(at),
        filter: { types, tags },
        upcast,
      };
      try {
        for await (const batch of this.#stream(this.#contract.rpc(SUBSCRIBE), request, this.#metadata({}))) {
          [failures, heard] = [0, true];
          for (const recorded of batch.events) {
            if (BigInt(recorded[position]) <= at) continue;
            at = BigInt(recorded[position]);
            yield this.#event(recorded);
          }
          // With a filter, the server has read further than its last event.
          const read = batch.caughtUp ?? batch.resume;
          if (read && BigInt(read.position) > at) at = BigInt(read.position);
        }
      } catch (error) {
        // Once it has heard anything, outages are waited out; until then, as long as any other call.
        const late = !heard && Date.now() - began > (this.#settings.timeout ?? TIMEOUT);
        if (!(error instanceof CeqsError) || error.retryAfter === undefined || late) throw error;
      }
      await sleep(delay(failures++));
    }
  }

  decode(type, payload) {
    return decode(this.#contract.root.lookupType(type), payload);
  }

  close() {
    this.#channel.close();
  }

  #event(recorded) {
    const { seconds, nanos } = recorded.recordedAt ?? { seconds: 0, nanos: 0 };
    const { id, type, position, publicPosition, commandId, causationId, correlationId, actor, payload } = recorded;
    return {
      ...{ id, type, position, publicPosition, commandId, causationId, correlationId, actor, payload },
      version: recorded.schemaVersion || 1,
      recordedAt: new Date(Number(seconds) * 1000 + nanos / 1e6),
      message: this.#contract.event(recorded),
    };
  }

  /** Call until it is answered, or refused for good, or the time is up. */
  async #call(rpc, request, metadata, timeout = this.#settings.timeout ?? TIMEOUT) {
    const deadline = Date.now() + timeout;
    const bytes = encode(rpc.request, request);
    for (let failures = 0; ; failures++) {
      try {
        return await this.#once(rpc, bytes, metadata, deadline);
      } catch (failure) {
        const error = errorOf(failure);
        const pause = Math.max(error.retryAfter ?? 0, delay(failures));
        if (error.retryAfter === undefined || Date.now() + pause >= deadline) throw error;
        await sleep(pause);
      }
    }
  }

  #once(rpc, bytes, metadata, deadline) {
    return new Promise((resolve, reject) => {
      let trailers = new Metadata();
      const done = (error, message) => (error ? reject(error) : setImmediate(() => resolve({ message, trailers })));
      const call = this.#channel.makeUnaryRequest(
        rpc.path, (sent) => sent, (raw) => decode(rpc.response, raw), bytes, metadata, { deadline }, done,
      );
      call.on("status", (status) => (trailers = status.metadata));
    });
  }

  async *#stream(rpc, request, metadata) {
    const bytes = encode(rpc.request, request);
    const call = this.#channel.makeServerStreamRequest(
      rpc.path, (sent) => sent, (raw) => decode(rpc.response, raw), bytes, metadata,
    );
    try {
      yield* call;
    } catch (failure) {
      throw errorOf(failure);
    } finally {
      call.cancel();
    }
  }

  #metadata(entries) {
    const { key, actor } = this.#settings;
    const metadata = new Metadata();
    for (const [name, value] of Object.entries({ "ceqs-key": key, "ceqs-actor": actor, ...entries })) {
      if (value) metadata.set(name, value);
    }
    return metadata;
  }

  /** Remember what this client has written: of several commands under way, the last answer need not be the latest. */
  #note(token) {
    if (!token) return;
    const type = this.#contract.root.lookupType("ceqs.v1.ConsistencyToken");
    const positions = {};
    for (const one of [this.#written, token].filter(Boolean)) {
      for (const [log, position] of Object.entries(decode(type, Buffer.from(one, "base64url")).positions)) {
        if (BigInt(position) > BigInt(positions[log] ?? 0)) positions[log] = position;
      }
    }
    this.#written = encode(type, { positions }).toString("base64url");
  }
}

function text(metadata, name) {
  return String(metadata.get(name)[0] ?? "");
}

function delay(failures) {
  return Math.random() * Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures);
}
