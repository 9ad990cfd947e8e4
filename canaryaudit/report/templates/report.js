// Show a tooltip for the marks of a figure on hover, on touch, or with the arrow keys. Its text is the mark's
// aria-label. Without this script the page only lacks these tooltips.
(() => {
  "use strict";
  const REACH = 14; // pixels
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "status");
  document.body.append(tip);

  let shown = null;
  const show = (mark) => {
    shown = mark;
    const box = mark.getBoundingClientRect();
    tip.textContent = mark.getAttribute("aria-label");
    tip.hidden = false;
    const left = box.left + box.width / 2 - tip.offsetWidth / 2;
    const above = box.top - tip.offsetHeight - 8;
    tip.style.left = `${Math.max(4, Math.min(left, document.documentElement.clientWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${above < 4 ? box.bottom + 8 : above}px`;
  };
  const hide = () => { tip.hidden = true; };
  const away = (box, x, y) =>
    Math.hypot(Math.max(box.left - x, 0, x - box.right), Math.max(box.top - y, 0, y - box.bottom));

  for (const region of document.querySelectorAll("figure .scroll")) {
    const marks = () => [...region.querySelectorAll("svg [aria-label]")].filter((mark) => mark.getClientRects().length);
    let current = -1;
    const point = (event) => {
      let best = null, least = [REACH, Infinity];
      for (const mark of marks()) {
        const box = mark.getBoundingClientRect();
        const distance = [away(box, event.clientX, event.clientY), box.width * box.height];
        if (distance[0] < least[0] || (distance[0] === least[0] && distance[1] <= least[1])) [best, least] = [mark, distance];
      }
      if (best) show(best); else hide();
    };
    region.addEventListener("pointermove", point);
    region.addEventListener("pointerdown", point);
    region.addEventListener("pointerleave", hide);
    region.addEventListener("blur", hide);
    region.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      const all = marks();
      if (!all.length) return;
      event.preventDefault();
      current = (current + step + all.length) % all.length;
      all[current].scrollIntoView({ block: "nearest", inline: "nearest" });
      show(all[current]);
    });
  }
  addEventListener("scroll", () => { if (!tip.hidden) show(shown); }, { passive: true });
})();
