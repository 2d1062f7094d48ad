"use strict";
(() => {
  const { cards, networks } = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 24;
  const find = (id) => document.getElementById(id);
  const [model, baseline] = networks;
  let page = 0;

  const inside = (card, network) => card.seen[network].inside;
  const change = (card) => {
    if (!baseline) return 0;
    const [ours, theirs] = [card.seen[model], card.seen[baseline]];
    const moved = ours.inside === null || theirs.inside === null ? 0 : Math.abs(ours.inside - theirs.inside);
    return (ours.predicted === theirs.predicted ? 0 : 1) + moved;
  };
  const keys = {
    given: null,
    outside: (card) => inside(card, network()) ?? 2,
    certain: (card) => -card.seen[network()].certainty,
    changed: (card) => -change(card),
  };
  const filters = {
    all: () => true,
    wrong: (card) => !card.seen[network()].right,
    outside: (card) => inside(card, network()) !== null && inside(card, network()) < 0.5,
    changed: (card) => card.seen[model].predicted !== card.seen[baseline].predicted,
  };
  const network = () => (find("network") ? find("network").value : model);

  function make(name, attributes, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  function draw(card) {
    const seen = card.seen[network()];
    const stack = make("div", { class: "stack" });
    stack.append(make("img", { src: card.picture, alt: `${card.name}: ${card.target}, classified as ${seen.predicted}` }));
    if (seen.heat) stack.append(make("img", { src: seen.heat, alt: "", class: "heat-map" }));
    if (card.outline) stack.append(make("img", { src: card.outline, alt: "", class: "outline" }));
    const where = seen.inside === null ? "" : `, ${Math.round(100 * seen.inside)} % inside`;
    const lines = [make("div", {}, `${card.target} → ${seen.predicted} (${Math.round(100 * seen.certainty)} %)`)];
    if (!seen.right) lines.push(make("div", { class: "wrong-word" }, "wrong"));
    lines.push(make("div", { class: "quiet" }, `${card.name}${where}`));
    return make("li", seen.right ? {} : { class: "wrong" }, stack, ...lines);
  }

  function show() {
    const key = keys[find("order").value];
    const chosen = cards.filter(filters[find("filter").value]);
    if (key) {
      const value = new Map(chosen.map((card) => [card, key(card)]));
      chosen.sort((a, b) => value.get(a) - value.get(b));
    }
    const pages = Math.max(1, Math.ceil(chosen.length / PAGE));
    page = Math.min(page, pages - 1);
    find("cards").replaceChildren(...chosen.slice(page * PAGE, (page + 1) * PAGE).map(draw));
    find("count").textContent = `${chosen.length} of ${cards.length} images`;
    find("place").textContent = `${page + 1} of ${pages}`;
    find("back").disabled = page === 0;
    find("next").disabled = page === pages - 1;
  }

  for (const id of ["order", "filter", "network"]) {
    find(id)?.addEventListener("change", () => { page = 0; show(); });
  }
  find("opacity").addEventListener("input", (event) => {
    find("cards").style.setProperty("--opacity", event.target.value / 100);
  });
  find("outlines").addEventListener("change", (event) => {
    find("cards").classList.toggle("no-outlines", !event.target.checked);
  });
  find("back").addEventListener("click", () => { page -= 1; show(); });
  find("next").addEventListener("click", () => { page += 1; show(); });
  find("controls").addEventListener("submit", (event) => event.preventDefault());
  show();
})();
