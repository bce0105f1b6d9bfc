/** Calls the services of a ceqs context and hears its events, from its .proto files alone. */

export { Client } from "./client.js";
export { CeqsError } from "./errors.js";
