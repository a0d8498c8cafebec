/** The calls of the server.  Paths are relative to the page, which may live below a prefix. */

import { readEvents } from "./events.js";

const KEY = "ragengine-key";
let key = stored();

/** What the server answered in the place of what was asked: a sentence, and the field that it is about. */
export class ServerError extends Error {
  constructor(message, { status = 0, type = "", field = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, type, field, retryAfter });
  }
}

/** Send this key from now on; it is kept as long as the tab. */
export function useKey(text) {
  key = text;
  try {
    sessionStorage.setItem(KEY, text);
  } catch { /* storage is off: kept in memory */ }
}

export const hasKey = () => key !== "";

export const info = () => call("info");

export const retrieve = (body, signal) => call("v1/retrieve", body, signal);

export const answer = (body, signal) => call("v1/answer", body, signal);

/** The events of a streamed answer as `[name, content]`. */
export async function* stream(body, signal) {
  const response = await send("v1/answer", { ...body, stream: true }, signal);
  let last = "";
  try {
    for await (const [name, content] of readEvents(response.body)) {
      if (name === "error") throw new ServerError(content.message, { status: 200, ...content });
      yield [last = name, content];
    }
  } catch (error) {
    throw error instanceof ServerError || signal?.aborted ? error : new ServerError("The connection broke off.");
  }
  if (last !== "final") throw new ServerError("The connection ended before the answer did.");
}

async function call(path, body, signal) {
  return (await send(path, body, signal)).json();
}

async function send(path, body, signal) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const request = { headers, signal };
  if (body) Object.assign(request, {
    method: "POST",
    headers: { ...headers, "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  let response;
  try {
    response = await fetch(path, request);
  } catch (error) {
    throw signal?.aborted ? error : new ServerError("The server cannot be reached.");
  }
  if (response.ok) return response;
  const { status } = response;
  const retryAfter = response.headers.get("Retry-After");
  const told = await response.json().catch(() => null);
  const { message, type, field } = told?.error ?? { message: `The server answered ${status}.` };
  throw new ServerError(message, { status, type, field, retryAfter });
}

function stored() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}
