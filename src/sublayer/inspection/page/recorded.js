// The page as one file: a view that was recorded, and nobody to ask.

import { mount } from "./page.js";

const view = JSON.parse(document.getElementById("view").textContent);
mount(document.getElementById("app"), { about: view.about, ask: null, view, whole: true });
