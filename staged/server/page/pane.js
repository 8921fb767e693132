// One trajectory, live: its steps as they come, and the ways to step in.

import { events, get, post, request } from "./api.js";
import { button, complain, doing, h, picture } from "./dom.js";

const AGAIN = { stream: false, on_disconnect: "continue" };
const REASONS = {
  cancelled: "it was cancelled", deadline: "its time ran out", interrupted: "the server was stopped",
  shutdown: "the server was ending", storage: "the server's disk is full",
};

export class Pane {
  // `go` shows trajectories by id; `use` puts settings into the form.
  constructor(id, { go, use, ended }) {
    this.id = id;
    this.actions = { go, use, ended };
    this.steps = [];
    this.over = this.failed = false;
    this.closing = new AbortController();
    this.final = h("div", { class: "final none" }, h("span", { class: "quiet" }, "no picture yet"));
    this.title = h("h2", { class: "prompt" }, "…");
    this.status = h("p", { role: "status" }, "asking the server");
    this.facts = h("dl", { class: "facts" });
    this.buttons = h("div", { class: "actions" });
    this.list = h("ol", { class: "steps" });
    this.forming = null;
    this.root = h("article", { class: "pane" },
      h("div", { class: "outcome" }, this.final,
        h("div", { class: "about" }, this.title, this.status, this.facts, this.buttons)),
      this.list);
  }

  close() { this.closing.abort(); }

  async follow() {
    try {
      this.told = await get(`/v1/trajectories/${this.id}`);
      this.introduce();
      for await (const event of events(this.id, this.closing.signal)) this.take(event);
    } catch (error) {
      this.status.textContent = "It cannot be shown.";
      complain(error);
    }
  }

  introduce() {
    const { prompt, seed, asked, parent } = this.told;
    this.title.textContent = prompt;
    const facts = Object.entries({ seed, ...asked });
    this.facts.replaceChildren(...facts.map(([name, value]) =>
      h("div", {}, h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, String(value)))));
    if (parent) {
      this.facts.append(h("div", {}, h("dt", {}, "goes on from"),
        h("dd", {}, h("a", { href: `#/${parent}` }, "another"))));
    }
    this.status.textContent = "Waiting for its turn.";
    this.buttons.replaceChildren(
      button("Cancel", doing(() => post(`/v1/trajectories/${this.id}/cancel`))));
  }

  take({ name, data }) {
    if (name === "started") this.status.textContent = "Thinking.";
    else if (name === "text") this.writing(data);
    else if (name === "preview") this.preview(data);
    else if (name === "retry") this.status.textContent = `Trying again: ${data.detail || data.reason}`;
    else if (name === "stop") {
      const oneShot = this.told.asked.mode === "one-shot";
      const why = data.ended_by === "model" ? "it decided to stop" : "it reached a limit";
      this.end(oneShot ? "Done." : `Done: ${why}.`);
    } else if (name === "failed") {
      this.failed = true;
      const why = REASONS[data.reason] ?? `${data.reason}: ${data.detail ?? ""}`;
      this.end(`It ended before its time: ${why}.`);
    } else if (data.step) this.step(data);
  }

  // What is being made stands at the end of the list until the step itself takes its place.
  coming(kind) {
    if (!this.forming || this.forming.dataset.kind !== kind) {
      this.forming?.remove();
      this.forming = h("li", { class: "card step", "data-kind": kind },
        h("p", { class: "label" }, `${kind}, coming`));
      this.list.append(this.forming);
    }
    return this.forming;
  }

  // The first words may come before it shows what they will be.
  writing({ step: { step = "text", ...fields } }) {
    const coming = this.coming(step);
    const said = Object.values(fields).filter((value) => typeof value === "string");
    coming.replaceChildren(coming.firstChild, ...said.map((words) => h("p", {}, words)));
    this.status.textContent = `Writing: ${step}.`;
  }

  preview({ flow_step, num_flow_steps, image }) {
    const coming = this.coming("sketch");
    if (!coming.querySelector("img")) {
      coming.append(picture(image, "the picture that is forming"),
        h("progress", { "aria-label": "flow steps" }));
      this.status.textContent = "Drawing.";
    }
    coming.querySelector("img").src = image;
    Object.assign(coming.querySelector("progress"), { value: flow_step, max: num_flow_steps });
  }

  step({ index, given, step }) {
    this.forming?.remove();
    this.forming = null;
    this.steps[index] = step;
    const item = h("li", { class: `card step${given ? " given" : ""}`, id: `${this.id}-${index}` });
    item.append(h("p", { class: "label" }, step.target ? `${step.step} of the ${step.target}` : step.step,
      given ? " (given)" : ""), ...this.shown(step, index), this.steering(step, index, item));
    this.list.append(item);
    this.status.textContent = `${step.step[0].toUpperCase()}${step.step.slice(1)} made.`;
  }

  shown(step, index) {
    switch (step.step) {
      case "plan":
        return [h("p", { class: "instruction" }, step.instruction), h("p", {}, step.description)];
      case "sketch":
        this.final.className = "final";
        this.final.replaceChildren(picture(step.image, `${this.told.prompt}: the newest sketch`));
        return [picture(step.image, `the sketch of step ${index + 1}`),
          h("p", { class: "quiet" }, `${step.num_flow_steps} flow steps`)];
      case "inspection": {
        const good = step.verdict === "accept";
        return [h("p", {}, h("span", { class: `mark ${good ? "good" : "bad"}` },
          good ? "accepted" : "to be revised")), h("p", {}, step.critique)];
      }
      default:
        return [h("p", { class: "said" }, step.instruction ?? step.text)];
    }
  }

  // Whatever is changed goes on as a trajectory of its own; this one stays as it is.
  steering(step, index, item) {
    const row = h("div", { class: "actions" });
    const edit = (words, fields, make) =>
      row.append(button(words, () => this.edit(item, fields, (said) => this.fork(index, make(said)))));
    if (step.step === "plan") {
      edit("Change this plan", { instruction: step.instruction, description: step.description },
        (said) => ({ step: "plan", ...said }));
    } else if (step.step === "refinement") {
      edit("Change this correction", { instruction: step.instruction },
        (said) => ({ step: "refinement", ...said }));
    } else if (step.step === "inspection") {
      const verdict = step.verdict === "accept" ? "revise" : "accept";
      edit(verdict === "accept" ? "Accept it after all" : "Refuse it", { critique: step.critique },
        (said) => ({ step: "inspection", target: step.target, verdict, ...said }));
    }
    if (["plan", "sketch", "refinement", "inspection"].includes(step.step)) {
      row.append(button("Again with another seed", doing(() => this.fork(index, null, anySeed()))));
    }
    return row;
  }

  edit(item, fields, send) {
    item.querySelector("form")?.remove();
    const boxes = Object.entries(fields).map(([name, value]) => {
      const box = h("textarea", { name, rows: 2, required: true, maxlength: 2000 });
      box.value = value;
      return [h("label", {}, name, box), box];
    });
    const form = h("form", {}, ...boxes.map(([label]) => label), h("div", { class: "actions" },
      h("button", { type: "submit" }, "Go on from here"),
      button("Leave it", () => form.remove())));
    form.addEventListener("submit", doing(async (event) => {
      event.preventDefault();
      await send(Object.fromEntries(boxes.map(([, box]) => [box.name, box.value])));
    }));
    item.append(form);
    boxes[0][1].focus();
  }

  async fork(at, step, seed) {
    const body = { at, ...AGAIN, ...(step && { step }), ...(seed !== undefined && { seed }) };
    const { id } = await post(`/v1/trajectories/${this.id}/fork`, body);
    // One that is overtaken needs no more work.
    if (!this.over) await post(`/v1/trajectories/${this.id}/cancel`);
    this.actions.go([id]);
  }

  end(words) {
    this.over = true;
    this.forming?.remove();
    this.status.textContent = words;
    const { prompt, seed, asked } = this.told;
    const whole = { prompt, ...asked };
    const redraw = (more, beside) => doing(async () => {
      const { id } = await post("/v1/trajectories", { ...whole, ...more, ...AGAIN });
      this.actions.go(beside ? [this.id, id] : [id]);
    });
    const alone = !this.told.inputs.length; // inputs are not sent along
    const other = asked.mode === "one-shot" ? "staged" : "one-shot";
    this.buttons.replaceChildren(...[
      alone && button("Another seed", redraw({ seed: anySeed() })),
      alone && button(`Compare with ${other}`, redraw({ seed, mode: other }, true)),
      this.failed && this.steps.length > 0 &&
        button("Go on", doing(() => this.fork(this.steps.length))),
      button("Use its settings", () => this.actions.use({ prompt, seed, ...asked })),
      button("Delete", doing(async () => {
        await request("DELETE", `/v1/trajectories/${this.id}`);
        this.actions.go([]);
      })),
    ].filter(Boolean));
    this.actions.ended();
  }
}

export const anySeed = () => Math.floor(Math.random() * 2 ** 31);
