/** Calls the services of a ceqs context and hears its events, from its .proto files alone. */

import type { ChannelCredentials } from "@grpc/grpc-js";

/** How protobuf messages look: fields in camelCase, 64-bit numbers and enums as text, bytes as Buffer. */
export type Message = { [field: string]: any };

/** What a client is to know. */
export interface ClientSettings {
  /** The directories that imports are found in; those of ceqs itself (`proto/`) among them. */
  directories: string[];
  /** The context's .proto files, relative to one of them. */
  files: string[];
  /** The context's name; may be left out where the server serves one. */
  context?: string;
  /** The context's key, for private events. */
  key?: string;
  /** Who sends the commands. */
  actor?: string;
  /** Milliseconds that a call may take, over all of its attempts; 10,000 where nothing is said. */
  timeout?: number;
  /** Insecure where nothing is said. */
  credentials?: ChannelCredentials;
}

/** What becomes of one call. */
export interface CallSettings {
  /** As in ClientSettings. */
  timeout?: number;
}

export interface CommandSettings extends CallSettings {
  /** Whoever sends a command again under its id gets the first answer, and it is done once. Made up if left out. */
  commandId?: string;
}

export interface QuerySettings extends CallSettings {
  /** A token that the answer must include; that of this client's own last commands if left out. */
  atLeast?: string;
  /** A token or an RFC 3339 time: the answer is as it was then. */
  asOf?: string;
}

/** The answer to a query, and how old it is. */
export interface Answer<R extends object = Message> {
  message: R;
  /** What the answer includes. */
  token: string;
  /** How many events the model is behind the log. */
  lag: number;
  /** How many events are parked in the model. */
  parked: number;
  /** When the last event that the answer includes was recorded. */
  recordedAt?: Date;
}

export interface EventSettings {
  /** Begin after this position: a public position in the public scope. */
  after?: string | number;
  /** Private events need the context's key. */
  scope?: "public" | "private";
  /** Full names of event types; all of them if left out. */
  types?: string[];
  /** Tags, all of which an event carries. */
  tags?: string[];
  /** Whether events of earlier versions come as the newest; they do if left out. */
  upcast?: boolean;
}

/** A recorded event. */
export interface Event<M extends object = Message> {
  id: string;
  /** The full name of its message type. */
  type: string;
  /** The version of its schema. */
  version: number;
  position: string;
  /** "0" for a private event. */
  publicPosition: string;
  recordedAt: Date;
  commandId: string;
  causationId: string;
  correlationId: string;
  actor: string;
  /** What happened; null where this client's files do not know the type, the version or how it is encoded. */
  message: M | null;
  payload: Uint8Array;
}

/** A call that was refused, or had no answer. */
export class CeqsError extends Error {
  /** The name of the gRPC status: "FAILED_PRECONDITION". */
  readonly code: string;
  /** What a program goes by: "ORDER_EXISTS", or the code where the server gave none. */
  readonly reason: string;
  readonly metadata: { [name: string]: string };
  /** What is wrong with a request, by field. */
  readonly violations: { field: string; description: string }[];
  /** Milliseconds after which trying again makes sense; undefined where it does not. */
  readonly retryAfter?: number;
}

/** A client of one context. Rpcs go by their names, "PlaceOrder", or by their paths. */
export class Client {
  constructor(address: string, settings: ClientSettings);
  /** Send a command until it is answered; done once, however often it is sent. Rejects with CeqsError. */
  command<R extends object = Message>(rpc: string, request: object, settings?: CommandSettings): Promise<R>;
  /** Ask a query. It reads this client's own writes. Rejects with CeqsError. */
  query<R extends object = Message>(rpc: string, request: object, settings?: QuerySettings): Promise<Answer<R>>;
  /** Ask a live query: the answer, and again whenever it changes; leave the loop to end it. */
  watch<R extends object = Message>(rpc: string, request: object, settings?: QuerySettings): AsyncGenerator<R, void>;
  /** Give recorded events, then those to come, each once and in order; outages are waited out. */
  events<M extends object = Message>(settings?: EventSettings): AsyncGenerator<Event<M>, void>;
  /** Decode the protobuf bytes of a message type, by its full name. */
  decode(type: string, payload: Uint8Array): Message;
  /** End all calls. */
  close(): void;
}
