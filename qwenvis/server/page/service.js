/** The requests that the page sends to its service, and their errors in the words of the service. */

/** An error of a request; status is 0 if there was no answer; `passing` if the same request may succeed later. */
export class ServiceError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
    this.passing = [0, 429, 503].includes(status);
  }
}

/** Return what the service says about its model. Raises ServiceError. */
export async function model(secret) {
  return (await ask("v1/model", { headers: authorized(secret) })).json();
}

/**
 * Encode a file; return the bytes of a safetensors file, and the seconds that the service took.
 *
 * @param {Blob} file an image or a film
 * @param {{maxPixels: string, secret: string, signal: AbortSignal}} options maxPixels and secret may be empty
 * @throws {ServiceError} unless the service answers with tokens
 */
export async function encode(file, { maxPixels, secret, signal }) {
  const query = new URLSearchParams({ format: "safetensors", colors: "true" });
  if (maxPixels) query.set("max_pixels", maxPixels);
  const type = /^(image|video)\//.test(file.type) ? file.type : "application/octet-stream";
  const headers = { "Content-Type": type, ...authorized(secret) };
  const began = performance.now();
  const answer = await ask(`v1/encode?${query}`, { method: "POST", body: file, headers, signal });
  const buffer = await answer.arrayBuffer();
  return { buffer, seconds: duration(answer, "encode") ?? (performance.now() - began) / 1000 };
}

function authorized(secret) {
  return secret ? { Authorization: `Bearer ${secret}` } : {};
}

async function ask(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(0, "The service does not answer. Is it still running?");
  }
  if (!answer.ok) throw new ServiceError(answer.status, await reason(answer));
  return answer;
}

/** Return the message of an answer that is an error. */
async function reason(answer) {
  const body = await answer.json().catch(() => null); // a proxy may answer with a page
  const message = body?.error?.message ?? `The service answered ${answer.status} ${answer.statusText}.`;
  const wait = answer.headers.get("Retry-After");
  return wait ? `${message} (Try again in ${wait} seconds.)` : message;
}

/** Return the seconds of an entry of the Server-Timing header, or undefined. */
function duration(answer, name) {
  const found = answer.headers.get("Server-Timing")?.match(new RegExp(`\\b${name};dur=([\\d.]+)`));
  return found ? Number(found[1]) / 1000 : undefined;
}
