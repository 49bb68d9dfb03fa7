// Replaces the part of the page that follows running studies or a dry run whenever the server says it changed, and says
// so when the connection is lost: then what stands there may be old. Without JavaScript the page shows the same facts
// after a reload.
const live = document.querySelector("[data-live]");
const QUIET_MS = 40000; // the server speaks at least every 15 seconds
const note = document.getElementById("stale");
if (live && note && "EventSource" in window) {
  const since = note.querySelector("time");
  let events, heard, seen;
  const current = () => {
    heard = Date.now();
    note.hidden = true;
  };
  const stale = () => {
    if (!note.hidden) return;
    since.textContent = seen.toLocaleTimeString(document.documentElement.lang);
    since.dateTime = seen.toISOString();
    note.hidden = false;
  };
  const refresh = async () => {
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html", "x-tessera-live": "1" } });
      if (!answer.ok) throw new Error(answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelector("[data-live]");
      if (!fresh) return location.reload(); // signed out meanwhile
      live.replaceChildren(...fresh.childNodes);
      live.dataset.live = fresh.dataset.live; // what the next connection has seen
      seen = new Date();
      current();
    } catch {
      stale();
    }
  };
  const connect = () => {
    heard = Date.now();
    events = new EventSource(live.dataset.live);
    events.addEventListener("changed", refresh);
    events.addEventListener("here", current);
    events.onopen = () => (note.hidden ? current() : refresh());
    events.onerror = () => setTimeout(() => events.readyState !== EventSource.OPEN && stale(), 3000); // streams end
  };
  seen = new Date();
  connect();
  setInterval(() => {
    if (Date.now() - heard < QUIET_MS && events.readyState !== EventSource.CLOSED) return;
    stale();
    events.close();
    connect();
  }, 5000);
}

// Sends a form once, however often its button is clicked; coming back to the page makes it new.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (form.dataset.sent) return event.preventDefault();
  setTimeout(() => event.defaultPrevented || (form.dataset.sent = "yes")); // a security key may be asked first
});
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});
