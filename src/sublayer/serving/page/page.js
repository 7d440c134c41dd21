// The page: a tab for each thing that the models here can do.

import { fetched, key } from "./asking.js";
import { chat } from "./chat.js";
import { complete } from "./complete.js";
import { element } from "./dom.js";
import { labelled } from "./panel.js";
import { translate } from "./translate.js";

const main = element("main", { id: "panel", role: "tabpanel" });
const tablist = element("div", { role: "tablist", "aria-label": "What to do" });

async function open() {
  const settings = await fetched("frontend/settings");
  if (settings.keyRequired && !key.value) {
    askForKey();
    return;
  }
  const models = (await fetched("v1/models")).data;
  const writers = models.filter((one) => one.task === "generate");
  const panels = [];
  if (models.some((one) => one.task === "translate")) panels.push(["Translate", await translate()]);
  if (writers.length) panels.push(["Complete", complete(writers)], ["Chat", chat(writers)]);
  if (!panels.length) {
    main.replaceChildren(element("p", {}, "These models are asked by their API: see ", element("a", { href: "openapi.json" }, "openapi.json"), "."));
    return;
  }
  const tabs = panels.map(([title, panel]) => {
    const tab = element("button", { role: "tab", type: "button", "aria-controls": "panel" }, title);
    tab.addEventListener("click", () => choose(tab, panel));
    return tab;
  });

  function choose(tab, panel) {
    for (const each of tabs) {
      each.setAttribute("aria-selected", String(each === tab));
      each.tabIndex = each === tab ? 0 : -1;
    }
    main.replaceChildren(panel);
    main.setAttribute("aria-label", tab.textContent);
  }

  tablist.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = tabs.findIndex((tab) => tab === document.activeElement);
    const next = tabs[(at + step + tabs.length) % tabs.length];
    next.click();
    next.focus();
  });
  tablist.replaceChildren(...tabs);
  tabs[0].click();
  main.querySelector("textarea").focus();
}

function askForKey() {
  const given = element("input", { type: "password", autocomplete: "off", autofocus: true });
  const form = element("form", {}, labelled("API key", given), element("button", { class: "go", type: "submit" }, "Open"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    key.value = given.value;
    start();
  });
  main.replaceChildren(form);
}

function start() {
  open().catch((error) => {
    key.value = "";
    main.replaceChildren(element("p", { class: "fault", role: "alert" }, error.message));
  });
}

document.body.append(element("header", {}, element("h1", {}, "sublayer"), tablist), main);
start();
