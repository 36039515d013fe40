// Keys, one answer per item, and where this tab was before a reload.
window.people = (() => {
  const KEYS = { 1: "first", 2: "second", t: "tie", u: "undo" };
  // Where the digits need Shift.
  const DIGITS = { Digit1: "first", Digit2: "second" };
  const CHOICES = ["first", "second", "tie"];
  // A hand that clicks twice means one answer; nobody judges a pair in less.
  const PAUSE = 250;
  const STORED = "people-code";
  const button = (name) => document.getElementById("people-" + name);
  const state = () => document.querySelector(".state");
  let seen = "";
  let ready = false;

  const setReady = (value) => {
    ready = value;
    for (const name of CHOICES) button(name)?.setAttribute("aria-disabled", String(!value));
  };

  const show = async (page) => {
    setReady(false);
    const images = [...page.querySelectorAll(".pictures img")];
    page.classList.add("waiting");
    const pause = new Promise((done) => setTimeout(done, PAUSE));
    try {
      await Promise.all(images.map((image) => image.decode()));
    } catch {
      if (state() === page) page.classList.replace("waiting", "failed");
      return;
    }
    page.classList.remove("waiting");
    await pause;
    if (state() !== page) return;
    setReady(true);
    for (const next of page.querySelectorAll(".ahead")) new Image().src = next.dataset.picture;
  };

  const look = () => {
    const page = state();
    const now = page ? page.dataset.code + " " + page.dataset.n : "";
    if (now === seen) return;
    seen = now;
    if (page) sessionStorage.setItem(STORED, page.dataset.code);
    window.scrollTo(0, 0);
    if (page && page.querySelector(".pictures")) show(page);
  };

  document.addEventListener("click", (event) => {
    const pressed = event.target.closest?.("#people-buttons button");
    if (!pressed) return;
    const held = pressed.id !== "people-undo" && !ready;
    if (held || event.detail > 1) {
      event.stopImmediatePropagation();
      event.preventDefault();
    }
  }, true);

  document.addEventListener("keydown", (event) => {
    // A browser presses the focused button again for as long as Enter is held down.
    if (event.repeat && event.key === "Enter" && event.target.closest?.("button")) event.preventDefault();
    const name = KEYS[event.key?.toLowerCase()] ?? DIGITS[event.code];
    const typing = event.target.closest?.("input, textarea, select");
    if (!name || typing || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    (button(name) ?? (name === "undo" ? button("back") : null))?.click();
  });

  new MutationObserver(look).observe(document.documentElement, { childList: true, subtree: true, attributes: true, attributeFilter: ["data-n"] });

  return {
    where: () => sessionStorage.getItem(STORED) || "",
    leave: () => (sessionStorage.removeItem(STORED), ""),
    say: (what) => JSON.stringify({ code: state()?.dataset.code ?? "", n: Number(state()?.dataset.n ?? -1), what }),
  };
})();
