// The page: what is asked, what is shown by the address, and what was drawn before.

import { get, keepKey, onKeyNeeded, post } from "./api.js";
import { button, complain, content, doing, h, picture } from "./dom.js";
import { anySeed, Pane } from "./pane.js";

const by = (id) => document.getElementById(id);
const form = by("ask");

// --- what is asked -------------------------------------------------------------------------

const NUMBERS = ["seed", "num_flow_steps", "guidance_scale", "image_guidance_scale", "max_rounds",
  "max_refinements", "temperature"];

function asked() {
  const fields = Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));
  delete fields.count;
  for (const name of NUMBERS) if (name in fields) fields[name] = Number(fields[name]);
  return { ...beyond, ...fields, stream: false, on_disconnect: "continue" };
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  content();
  try {
    const body = asked();
    const count = event.submitter?.name === "both" ? 1 : Number(form.count.value) || 1;
    const bodies = [];
    for (let i = 0; i < count; i += 1) {
      bodies.push({ ...body, ...(count > 1 && { seed: body.seed === undefined ? anySeed() : body.seed + i }) });
    }
    if (event.submitter?.name === "both") {
      const seed = body.seed ?? anySeed();
      bodies.splice(0, 1, { ...body, seed, mode: "staged" }, { ...body, seed, mode: "one-shot" });
    }
    const ids = [];
    for (const one of bodies) ids.push((await post("/v1/trajectories", one)).id);
    go(ids);
  } catch (error) {
    complain(error);
  }
});

by("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.requestSubmit();
  }
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("textarea, input, select, dialog");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    by("prompt").focus();
  }
});

by("clear").addEventListener("click", () => use({ prompt: form.prompt.value }));

let beyond = {}; // settings in use that have no field

function use(settings) {
  form.reset();
  beyond = {};
  for (const [name, value] of Object.entries(settings)) {
    if (form.elements[name]) form.elements[name].value = value;
    else beyond[name] = value;
  }
  const named = Object.entries(beyond).map(([name, value]) => `${name} ${value}`);
  by("beyond").textContent = named.length ? `Also: ${named.join(", ")}.` : "";
  if (Object.keys(settings).length > 1) by("settings").open = true;
  by("prompt").focus();
}

// --- a picture that says how it was drawn ---------------------------------------------------

function dataUrl(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(new Error("the file cannot be read"));
    reader.readAsDataURL(file);
  });
}

// Shows its trajectory if that is here; otherwise what it says is ready to be drawn.
const restore = doing(async (file) => {
  const said = await post("/v1/pictures", { image: await dataUrl(file) });
  if (said.trajectory) {
    go([said.trajectory]);
    return;
  }
  use({ prompt: said.prompt, seed: said.seed, ...said.settings });
  content();
  if (said.num_inputs) throw new Error("It was drawn onto another picture, which it does not carry.");
});

const holdsFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
addEventListener("dragover", (event) => { if (holdsFile(event)) event.preventDefault(); });
addEventListener("drop", (event) => {
  if (!holdsFile(event)) return;
  event.preventDefault(); // the browser would leave the page for the file
  if (event.dataTransfer.files[0]) restore(event.dataTransfer.files[0]);
});
by("from").addEventListener("change", (event) => {
  const [file] = event.target.files;
  event.target.value = ""; // the same file may be chosen again
  if (file) restore(file);
});

// --- what is shown: #/ID or #/ID,ID --------------------------------------------------------

let panes = [];

function go(ids) {
  const address = `#/${ids.join(",")}`;
  if (location.hash === address) show();
  else location.hash = address;
}

function show() {
  const ids = location.hash.replace(/^#\/?/, "").split(",").filter(Boolean).slice(0, 8);
  for (const pane of panes) pane.close();
  panes = ids.map((id) => new Pane(id, { go, use, ended: list }));
  by("panes").replaceChildren(...panes.map((pane) => pane.root));
  for (const pane of panes) pane.follow();
  document.title = ids.length ? "staged: a drawing" : "staged";
  content();
  list();
}

addEventListener("hashchange", show);

// --- what was drawn before -----------------------------------------------------------------

let older = null;
let asking = 0;

async function list() {
  asking += 1;
  const mine = asking;
  try {
    const found = await page(null);
    if (mine !== asking) return; // a newer question is on its way
    by("gallery").replaceChildren();
    stack(found);
  } catch (error) {
    complain(error);
  }
}

async function page(before) {
  const words = encodeURIComponent(by("words").value);
  const found = await get(`/v1/trajectories?limit=24&words=${words}${before ? `&before=${before}` : ""}`);
  older = found.next_before;
  by("more").hidden = !older;
  return found.data;
}

// Seeds of one prompt lie on one stack.
function stack(found) {
  const gallery = by("gallery");
  for (const one of found) {
    const same = [...gallery.children].find((item) => item.dataset.prompt === one.prompt);
    const item = same ?? h("li", { "data-prompt": one.prompt }, h("div", { class: "stack" }),
      h("p", { class: "prompt" }, one.prompt));
    const card = h("a", { href: `#/${one.id}`, title: `seed ${one.seed}` },
      h("span", { class: "none quiet" }, one.status === "running" ? "under way" : one.reason ?? "…"));
    item.querySelector(".stack").append(card);
    if (one.status === "running") {
      item.append(button("Cancel", doing(async () => {
        await post(`/v1/trajectories/${one.id}/cancel`);
        await list();
      })));
    }
    if (!same) gallery.append(item);
    if (one.status !== "running") thumbnail(one, card);
  }
  if (!gallery.children.length) gallery.append(h("li", { class: "quiet" }, "Nothing yet."));
}

async function thumbnail(one, card) {
  const whole = await get(`/v1/trajectories/${one.id}`).catch(() => null); // deleted meanwhile
  const last = whole?.steps.filter((step) => step.step === "sketch").at(-1);
  if (last) card.replaceChildren(picture(last.image, `${one.prompt}, seed ${one.seed}`));
}

by("more").addEventListener("click", doing(async () => stack(await page(older))));
by("search").addEventListener("submit", (event) => event.preventDefault());
let typed;
by("words").addEventListener("input", () => {
  clearTimeout(typed);
  typed = setTimeout(list, 250);
});

// --- keys, and whether the server is ready -------------------------------------------------

let keyGiven = null;
onKeyNeeded(() => {
  // Many requests may find it missing at once; they wait for one dialog.
  keyGiven ??= new Promise((given) => {
    by("key").addEventListener("close", () => {
      keepKey(by("api-key").value);
      by("api-key").value = "";
      keyGiven = null;
      given();
    }, { once: true });
    by("key").addEventListener("cancel", (event) => event.preventDefault());
    by("key").showModal();
  });
  return keyGiven;
});

async function watchReadiness() {
  const status = await fetch("/ready").then((r) => r.json()).then((r) => r.status).catch(() => "away");
  const words = { ready: "", loading: "is loading its model", ending: "is ending", away: "does not answer" };
  by("state").textContent = words[status] ?? status;
  setTimeout(watchReadiness, status === "ready" ? 15000 : 1500);
}

watchReadiness();
show();
