/** What the .proto files declare: messages, and rpcs by name. */

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import protobuf from "protobufjs";

// Where the files of buf/validate and of google/protobuf are.
const OWN = [
  fileURLToPath(new URL("../imports", import.meta.url)),
  dirname(createRequire(import.meta.url).resolve("protobufjs/package.json")),
];
const PLATFORM = ["ceqs/v1/events.proto", "ceqs/v1/answers.proto"];
const SHAPE = { longs: String, enums: String, defaults: true, arrays: true, objects: true };
const EVENT = "(ceqs.v1.event)";

export class Contract {
  constructor(directories, files) {
    this.root = new protobuf.Root();
    this.root.resolvePath = (_, target) =>
      [...directories, ...OWN].map((directory) => join(directory, target)).find(existsSync) ?? target;
    this.root.loadSync([...PLATFORM, ...files]).resolveAll();
    this.rpcs = new Map();
    for (const service of services(this.root)) {
      for (const method of service.methodsArray) {
        const rpc = {
          path: `/${service.fullName.slice(1)}/${method.name}`,
          request: method.resolvedRequestType,
          response: method.resolvedResponseType,
        };
        this.rpcs.set(rpc.path, rpc);
        // A name that two services have is none: call it by its path.
        this.rpcs.set(method.name, this.rpcs.has(method.name) ? undefined : rpc);
      }
    }
  }

  rpc(name) {
    const found = this.rpcs.get(name);
    if (!found) throw new TypeError(`${name} is no rpc of these files, or one of several; there are ${this.#names()}`);
    return found;
  }

  /** Give an event's message; null where these files do not know its type or version, or how it is encoded. */
  event(recorded) {
    const type = this.root.lookup(recorded.type, [protobuf.Type]);
    const options = type?.parsedOptions?.find((option) => EVENT in option)?.[EVENT];
    if (!options || (options.version ?? 1) !== (recorded.schemaVersion || 1) || recorded.codec) return null;
    return decode(type, recorded.payload);
  }

  #names() {
    return [...this.rpcs.keys()].filter((name) => name.startsWith("/")).join(", ");
  }
}

export function encode(type, request) {
  return Buffer.from(type.encode(type.fromObject(request)).finish());
}

export function decode(type, bytes) {
  return type.toObject(type.decode(bytes), SHAPE);
}

function* services(namespace) {
  for (const one of namespace.nestedArray) {
    if (one instanceof protobuf.Service) yield one;
    if (one.nestedArray) yield* services(one);
  }
}
