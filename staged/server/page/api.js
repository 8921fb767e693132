// Requests to the server: JSON, errors as people read them, and streams of events.

const KEY = "staged-api-key";

// Whoever shows the page asks for a key; the promise resolves once there is one.
let askForKey = async () => {};
export const onKeyNeeded = (ask) => { askForKey = ask; };
export const keepKey = (key) => sessionStorage.setItem(KEY, key);

export async function request(method, path, body, signal) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(path, {
    method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (response.status === 401) {
    await askForKey();
    return request(method, path, body, signal);
  }
  if (!response.ok) {
    const told = await response.json().catch(() => null);
    throw new Error(told?.error?.message ?? `the server answered ${response.status}`);
  }
  return response;
}

export const get = async (path) => (await request("GET", path)).json();
export const post = async (path, body = {}) => (await request("POST", path, body)).json();

// Yields {name, id, data}; picks the thread up again behind the last event when a connection breaks.
export async function* events(trajectory, signal) {
  let after = 0;
  for (let wait = 500; ; wait = Math.min(2 * wait, 15000)) {
    try {
      const path = `/v1/trajectories/${trajectory}/events?after=${after}`;
      const response = await request("GET", path, undefined, signal);
      for await (const event of parsed(response.body)) {
        if (event.id) { after = event.id; wait = 500; }
        yield event;
        if (event.name === "stop" || event.name === "failed") return;
      }
    } catch (error) {
      if (signal.aborted) return;
      // Only a connection breaks as a TypeError; what the server refuses it will refuse again.
      if (!(error instanceof TypeError)) throw error;
    }
    await new Promise((done) => setTimeout(done, wait));
    if (signal.aborted) return;
  }
}

async function* parsed(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      const event = { name: "message", id: 0, data: "" };
      for (const line of text.slice(0, end).split("\n")) {
        const colon = line.indexOf(":");
        const [field, said] = [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, "")];
        if (field === "event") event.name = said;
        if (field === "id") event.id = Number(said);
        if (field === "data") event.data += said;
      }
      if (event.data) yield { ...event, data: JSON.parse(event.data) };
    }
  }
}
