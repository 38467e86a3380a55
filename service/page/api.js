// Requests to the service that the page came from.

export class Problem extends Error {
  /** An error of the service: `code` as /problems lists it. */
  constructor(body, status) {
    super(body?.detail ?? `the service answered ${status}`);
    this.code = body?.code ?? "unknown";
    this.status = status;
  }
}

/** Return the URL of a path with options in its query. */
export function urlOf(path, options) {
  const url = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(options)) {
    if (value !== "" && value !== null && value !== undefined) url.searchParams.set(name, value);
  }
  return url;
}

/** Return the checkpoints of the service. */
export async function models(key) {
  const response = await fetch(urlOf("v1/models", {}), { headers: keyHeader(key) });
  return (await checked(response)).json().then((body) => body.data);
}

/** Caption an image: calls `on.start`, `on.word` and `on.caption` with the events' data. Throws Problem. */
export async function streamCaption(file, options, key, on, signal) {
  const headers = { Accept: "text/event-stream", "Content-Type": "application/octet-stream", ...keyHeader(key) };
  const response = await checked(
    await fetch(urlOf("v1/captions", options), { method: "POST", headers, body: file, signal }),
  );
  for await (const { name, data } of events(response.body)) {
    if (name === "error") throw new Problem(data, data.status);
    on[name]?.(data);
  }
}

/** Return the explanation of a sentence. Throws Problem. */
export async function explain(file, options, key) {
  return (await post("v1/explanations", file, options, key, "application/json")).json();
}

/** Return the contact sheet of a caption, or of an explanation if options has `caption`. Throws Problem. */
export async function contactSheet(file, options, key) {
  const path = "caption" in options ? "v1/explanations" : "v1/captions";
  return (await post(path, file, options, key, "image/png")).blob();
}

/** Return the options that /v1/explanations has. */
export function explanationOptions({ model, language }, caption) {
  return { model, language, caption };
}

async function post(path, file, options, key, accept) {
  const headers = { Accept: accept, "Content-Type": "application/octet-stream", ...keyHeader(key) };
  return checked(await fetch(urlOf(path, options), { method: "POST", headers, body: file }));
}

function keyHeader(key) {
  return key ? { "x-api-key": key } : {};
}

async function checked(response) {
  if (response.ok) return response;
  let body = null;
  try {
    body = await response.json();
  } catch {
    // a proxy's page
  }
  throw new Problem(body, response.status);
}

/** Yield the events of a stream as {name, data} (WHATWG HTML, section 9.2, as far as this service uses it). */
export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(
        block.split("\n").filter((line) => !line.startsWith(":")).map((line) => line.split(/: (.*)/s)),
      );
      if (fields.data) yield { name: fields.event, data: JSON.parse(fields.data) };
    }
  }
}
