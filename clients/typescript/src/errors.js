/** Errors, as the server tells them: google.rpc details by AIP-193. */

import { status as Status } from "@grpc/grpc-js";
import protobuf from "protobufjs";

const DETAILS = "grpc-status-details-bin";
const CODES = Object.fromEntries(Object.entries(Status).map(([name, code]) => [code, name]));
const rpc = protobuf.parse(`
  syntax = "proto3"; package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message RetryInfo { Duration retry_delay = 1; }
  message BadRequest { message FieldViolation { string field = 1; string description = 2; } repeated FieldViolation field_violations = 1; }
`).root.lookup("google.rpc");

export class CeqsError extends Error {
  constructor(code, message, { reason = code, metadata = {}, violations = [], retryAfter } = {}) {
    super(message);
    Object.assign(this, { name: "CeqsError", code, reason, metadata, violations, retryAfter });
  }
}

/** Give the error that a failed call stands for. */
export function errorOf(failure) {
  const found = {};
  for (const raw of failure.metadata?.get(DETAILS) ?? []) {
    for (const detail of rpc.Status.decode(raw).details) {
      const name = detail.typeUrl.slice(detail.typeUrl.lastIndexOf(".") + 1);
      const value = () => rpc[name].decode(detail.value);
      if (name === "ErrorInfo") Object.assign(found, { reason: value().reason, metadata: { ...value().metadata } });
      if (name === "BadRequest") found.violations = value().fieldViolations.map(({ field, description }) => ({ field, description }));
      if (name === "RetryInfo") found.retryAfter = milliseconds(value().retryDelay);
    }
  }
  const code = CODES[failure.code] ?? "UNKNOWN";
  // The server went away before it could say more: whatever was sent may be sent again.
  if (found.reason === undefined && (code === "UNAVAILABLE" || code === "CANCELLED")) found.retryAfter = 0;
  return new CeqsError(code, failure.details ?? failure.message, found);
}

function milliseconds(delay) {
  return Number(delay?.seconds ?? 0) * 1000 + Number(delay?.nanos ?? 0) / 1e6;
}
