// Tooltips for the marks of a figure, sorting and filtering of the table of canaries, the current section in the
// navigation, and downloads. Without this script the page lacks only these, and the download stays compressed.
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
    tip.textContent = mark.dataset.label;
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
    const marks = () => [...region.querySelectorAll("svg [data-label]")].filter((mark) => mark.getClientRects().length);
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

  // The current section.
  const nav = document.querySelector("body > nav");
  if (nav) {
    const links = [...nav.querySelectorAll("a")].map((link) => [link, document.getElementById(link.hash.slice(1))]);
    let current = null;
    const mark = () => {
      const line = nav.getBoundingClientRect().bottom + 8;
      const above = links.filter(([, heading]) => heading && heading.getBoundingClientRect().top <= line + 24);
      const link = above.length ? above.at(-1)[0] : links[0][0];
      if (link === current) return;
      if (current) current.removeAttribute("aria-current");
      (current = link).setAttribute("aria-current", "true");
      nav.scrollLeft = link.offsetLeft - nav.clientWidth / 2 + link.offsetWidth / 2;
    };
    addEventListener("scroll", mark, { passive: true });
    mark();
  }

  // A link to a canary or into a folded part opens it.
  const reveal = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (!target) return;
    for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
    const row = target.closest("table.canaries > tbody");
    if (!row) return;
    row.hidden = false;
    row.classList.remove("rest");
    const details = row.querySelector("details");
    if (details) details.open = true;
    row.scrollIntoView({ block: "start" });
  };
  addEventListener("hashchange", reveal);

  const save = (data, type, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([data], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  // The table of canaries.
  const table = document.querySelector("table.canaries");
  if (table) {
    const rows = [...table.tBodies], heads = [...table.tHead.rows[0].cells];
    const cells = (row) => [...row.rows[0].cells];
    const text = (cell) => (cell.firstElementChild?.tagName === "BDI" ? cell.firstElementChild : cell.firstChild)?.textContent.trim() ?? "";
    const value = (cell) => cell.dataset.v ?? text(cell).replace(/,/g, "").replace("\u2212", "-");
    const all = document.querySelector("details.all"), UNFOLDED = rows.filter((row) => !row.classList.contains("rest")).length;
    const tools = document.querySelector(".tools");
    const make = (tag, properties, ...children) => {
      const element = Object.assign(document.createElement(tag), properties);
      element.append(...children);
      return element;
    };
    const search = make("input", { type: "search", id: "search", autocomplete: "off" });
    const verdicts = [...new Set(rows.map((row) => text(cells(row)[1])))];
    const choice = make("select", { id: "choice" }, make("option", { value: "", textContent: "all" }),
      ...verdicts.map((verdict) => make("option", { value: verdict, textContent: verdict })));
    const count = make("span", { className: "count" });
    count.setAttribute("role", "status");
    const csv = make("button", { type: "button", textContent: "Download as CSV" });
    tools.append(make("label", { htmlFor: "search", textContent: "Find a canary " }), search,
      make("label", { htmlFor: "choice", textContent: "Verdict " }), choice, count, csv);
    tools.hidden = false;

    let order = rows, column = -1, direction = 1;
    const matching = () => order.filter((row) => !row.hidden);
    const show = () => {
      const wanted = search.value.trim().toLowerCase();
      for (const row of order) {
        row.hidden = !((!choice.value || text(cells(row)[1]) === choice.value) &&
          (!wanted || row.textContent.toLowerCase().includes(wanted)));
      }
      matching().forEach((row, place) => row.classList.toggle("rest", Boolean(all) && place >= UNFOLDED));
      count.textContent = `${matching().length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} canaries`;
    };
    search.addEventListener("input", show);
    choice.addEventListener("change", show);
    heads.forEach((head, place) => {
      const name = head.textContent;
      const button = make("button", { type: "button", className: "sort", ariaLabel: `Sort by ${name}` });
      head.append(button);
      button.addEventListener("click", () => {
        direction = column === place ? -direction : head.classList.contains("number") ? -1 : 1;
        column = place;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
        const keys = new Map(rows.map((row) => [row, value(cells(row)[place])]));
        const numeric = head.classList.contains("number") || place === 1;
        order = [...rows].sort((a, b) => {
          const [x, y] = [keys.get(a), keys.get(b)];
          if (!numeric) return direction * x.localeCompare(y, "en", { numeric: true });
          const [u, v] = [parseFloat(x), parseFloat(y)];
          return Number.isNaN(u) || Number.isNaN(v) ? Number.isNaN(u) - Number.isNaN(v) : direction * (u - v);
        });
        table.append(...order);
        show();
      });
    });
    csv.addEventListener("click", () => {
      // A spreadsheet takes a cell that begins with one of these signs for a formula.
      const quote = (cell) => `"${cell.replace(/^(?=[=+@\t\r-])/, "'").replace(/"/g, '""')}"`;
      const lines = [heads.map((head) => head.firstChild.textContent), ...matching().map((row) => cells(row).map(text))];
      save(lines.map((line) => line.map(quote).join(",") + "\r\n").join(""), "text/csv", "canaries.csv");
    });
    show();
  }
  reveal();

  // The page's data, unpacked.
  const download = document.getElementById("download");
  if (download && window.DecompressionStream) {
    download.textContent = "Download report.json";
    download.addEventListener("click", (event) => {
      event.preventDefault();
      const bytes = Uint8Array.from(atob(download.href.split(",")[1]), (sign) => sign.charCodeAt(0));
      const data = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      new Response(data).blob().then((blob) => save(blob, "application/json", "report.json"));
    });
  }
})();
