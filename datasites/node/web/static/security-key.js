// Asks the person's security key before a form that signs is sent, and makes new keys. Without JavaScript no key can be
// asked: the page says so (until this script takes the sentence away), and the server refuses what needs one.
const words = document.currentScript.dataset;
const secret = new Set(["csrf", "password", "new", "security_key", "token"]);
const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

for (const note of document.querySelectorAll("[data-without-script]")) note.remove();

async function options(path, body) {
  const headers = { "content-type": "application/json", "x-csrf-token": words.csrf };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.detail);
  found.challenge = bytes(found.challenge);
  for (const known of found.allowCredentials || found.excludeCredentials || []) known.id = bytes(known.id);
  return found;
}

function plain(credential, ...names) {
  const response = {};
  for (const name of ["clientDataJSON", ...names]) response[name] = text(credential.response[name]);
  return JSON.stringify({ id: credential.id, rawId: text(credential.rawId), type: credential.type, response });
}

async function make() {
  const publicKey = await options("/people/keys/new", {});
  publicKey.user.id = bytes(publicKey.user.id);
  return plain(await navigator.credentials.create({ publicKey }), "attestationObject");
}

async function ask(form, submitter) {
  const data = new FormData(form);
  if (submitter && submitter.name) data.append(submitter.name, submitter.value);
  const fields = [...data.entries()].filter(([name]) => !secret.has(name));
  const publicKey = await options("/people/keys/question", { path: form.getAttribute("action"), fields });
  return plain(await navigator.credentials.get({ publicKey }), "authenticatorData", "signature");
}

function put(form, name, value) {
  let field = form.querySelector(`input[type=hidden][name=${name}]`);
  if (!field) {
    field = Object.assign(document.createElement("input"), { type: "hidden", name });
    form.append(field);
  }
  field.value = value;
}

function tell(form, message) {
  form.querySelector("[role=alert]")?.remove();
  const note = Object.assign(document.createElement("p"), { className: "note bad", textContent: message });
  note.setAttribute("role", "alert");
  form.append(note);
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  const makes = form.hasAttribute("data-make-key");
  const signs = form.hasAttribute("data-sign");
  if (form.dataset.ready || !(makes || signs)) return;
  event.preventDefault();
  try {
    if (!window.PublicKeyCredential) throw new Error(words.unsupported);
    if (makes) put(form, "made", await make());
    if (signs) put(form, "security_key", await ask(form, event.submitter));
  } catch (error) {
    tell(form, error instanceof DOMException ? words.failed : error.message);
    return;
  }
  form.dataset.ready = "yes";
  form.requestSubmit(event.submitter);
});
