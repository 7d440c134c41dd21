// The page of `sublayer inspect`: the model is behind the server that the page came from.

import { h } from "./dom.js";
import { mount } from "./page.js";

async function reply(response) {
  let found = null;
  try {
    found = await response.json();
  } catch {
    throw Object.assign(new Error("bad reply"), { what: `the server replied ${response.status} with something else than JSON`, remedy: "Look at its terminal." });
  }
  if (!response.ok) throw Object.assign(new Error(found.what), found);
  return found;
}

async function fetched(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw Object.assign(new Error("no reply"), { what: "the server does not reply", remedy: "Is `sublayer inspect` still running?" });
  }
}

async function ask(question, signal) {
  const options = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(question), signal };
  return reply(await fetched("api/view", options));
}

const root = document.getElementById("app");
try {
  const { about, text } = await reply(await fetched("api/model"));
  document.title = `${about.name} · sublayer`;
  mount(root, { about, ask, text, whole: true });
} catch (error) {
  root.replaceChildren(h("p", { class: "fatal", role: "alert" }, `${error.what ?? error.message}. ${error.remedy ?? ""}`));
}
