// Elements from their parts. Text is only ever text: nothing that comes in is read as HTML.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null && child !== false));
  return element;
}

export const button = (words, act, more = {}) =>
  h("button", { type: "button", class: "second small", onclick: act, ...more }, words);

export function picture(source, words) {
  const image = h("img", { src: source, alt: words });
  // A small picture is looked at pixel by pixel; a large one is not.
  image.addEventListener("load", () => image.classList.toggle("pixels", image.naturalWidth <= 128));
  return image;
}

const trouble = document.getElementById("trouble");

export function complain(error) {
  trouble.textContent = error.message;
  trouble.hidden = false;
}

export function content() { trouble.hidden = true; }

// Wraps what a button does: one at a time, and its errors are shown.
export const doing = (act) => async (event) => {
  const pressed = event?.currentTarget;
  content();
  if (pressed) pressed.disabled = true;
  try {
    await act(event);
  } catch (error) {
    complain(error);
  } finally {
    if (pressed) pressed.disabled = false;
  }
};
