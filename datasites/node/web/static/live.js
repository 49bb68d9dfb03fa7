// Replaces the part of the page that follows running studies or a dry run whenever the server says it changed.
// Without JavaScript the page shows the same facts after a reload.
const live = document.querySelector("[data-live]");
if (live && "EventSource" in window) {
  const events = new EventSource(live.dataset.live);
  events.addEventListener("changed", async () => {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector("[data-live]");
    if (fresh) live.replaceChildren(...fresh.childNodes);
    else location.reload();
  });
}
