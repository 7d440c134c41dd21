// The server, asked: once, or with an answer that grows. A key, where one is needed, is kept for this tab alone.

const KEY = "sublayer-key";

export const key = {
  get value() { return sessionStorage.getItem(KEY) ?? ""; },
  set value(given) { sessionStorage.setItem(KEY, given); },
};

function headers() {
  const made = { "content-type": "application/json" };
  if (key.value) made.authorization = `Bearer ${key.value}`;
  return made;
}

async function checked(response) {
  if (response.ok) return response;
  let told = `The server answers ${response.status}.`;
  try {
    const { error } = await response.json();
    told = typeof error === "string" ? error : error.message;
  } catch { /* no JSON: the status is all that is known */ }
  throw new Error(told);
}

export async function fetched(path) {
  return (await checked(await fetch(path, { headers: headers() }))).json();
}

export async function asked(path, body, signal) {
  const sent = { method: "POST", headers: headers(), body: JSON.stringify(body), signal };
  return (await checked(await fetch(path, sent))).json();
}

// The events of a growing answer, one after another.
export async function* growing(path, body, signal) {
  const sent = { method: "POST", headers: headers(), body: JSON.stringify({ ...body, stream: true }), signal };
  const response = await checked(await fetch(path, sent));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const events = held.split("\n\n");
    held = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const part = JSON.parse(data);
      if (part.error) throw new Error(part.error.message);
      yield part;
    }
  }
}
