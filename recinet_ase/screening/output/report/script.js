"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const { points, scenes, palette, cells, elements } = JSON.parse($("data").textContent);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const fit = (canvas) => {
    const box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(box.width * ratio);
    canvas.height = Math.round(box.height * ratio);
    const g = canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    return [g, box.width, box.height];
  };
  const number = (v) => (v === null ? "none" : String(+v.toPrecision(4)));
  const redraws = [];

  // Shortlist: sorting and filtering. Empty cells come last in both directions.
  const table = $("shortlist");
  if (table) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = head.querySelector("button");
      if (!button) return;
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const keyed = [...body.rows].map((row) => [row.cells[column].dataset.v, row]);
        const known = keyed.filter(([v]) => v !== "");
        const numeric = known.every(([v]) => Number.isFinite(Number(v)));
        known.sort(([a], [b]) => (down ? -1 : 1) * (numeric ? a - b : a.localeCompare(b, "en", { numeric: true })));
        body.append(...[...known, ...keyed.filter(([v]) => v === "")].map(([, row]) => row));
      });
    });
    // The rows as they are sorted and filtered now; numbers in full.
    const rows = () => [...body.rows].filter((row) => !row.hidden);
    const save = (name, kind, text) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: `${kind};charset=utf-8` }));
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    };
    $("save-csv").addEventListener("click", () => {
      const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
      const head = heads.filter((h) => h.textContent !== "cell").map((h) => h.textContent.trim());
      const values = (row) => [...row.cells].filter((c) => !c.classList.contains("cell")).map((c) => c.dataset.v ?? "");
      save("shortlist.csv", "text/csv", [head, ...rows().map(values)].map((row) => row.map(quoted).join(",") + "\n").join(""));
    });
    const cif = (row) => {
      const cell = cells[row.id.slice(4) - 1];
      if (!cell) return "";
      const text = (name) => row.querySelector(name).dataset.v.replace(/\s+/g, " ");
      const sites = cell.z.map((symbol, i) => `${symbol}${i + 1} ${symbol} ${cell.xyz.slice(3 * i, 3 * i + 3).join(" ")}\n`);
      const names = ["length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma"];
      return `data_${text(".id").replace(/[^\w.-]+/g, "_")}\n# ${text(".formula")}\n_space_group_name_H-M_alt 'P 1'\n`
        + names.map((name, i) => `_cell_${name} ${cell.cell[i]}\n`).join("")
        + "loop_\n_space_group_symop_operation_xyz\n'x, y, z'\n"
        + "loop_\n_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"
        + sites.join("") + "\n";
    };
    if ($("save-cif")) $("save-cif").addEventListener("click", () => save("shortlist.cif", "chemical/x-cif", rows().map(cif).join("")));

    // Filters. A click on an element asks for it, a second leaves it out, a third forgets it.
    const held = new Map([...body.rows].map((row) => [row, new Set(row.querySelector(".formula").dataset.v.match(/[A-Z][a-z]?/g))]));
    const known = new Set([...held.values()].flatMap((found) => [...found]));
    const filter = () => {
      const wanted = $("filter").value.trim().toLowerCase();
      const marked = [...$("elements").querySelectorAll("[data-mark]")];
      for (const row of body.rows) {
        row.hidden = ![...row.querySelectorAll(".id, .formula, .group")].some((c) => c.textContent.toLowerCase().includes(wanted))
          || marked.some((b) => held.get(row).has(b.textContent) !== (b.dataset.mark === "with"));
      }
      $("count").textContent = rows().length < body.rows.length ? `${rows().length} of ${body.rows.length}` : "";
    };
    for (const [symbol, column, line] of elements) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = symbol;
      button.disabled = !known.has(symbol);
      button.style.gridArea = `${line} / ${column}`;
      button.addEventListener("click", () => {
        const mark = { with: "without", without: "" }[button.dataset.mark] ?? "with";
        if (mark) button.dataset.mark = mark; else delete button.dataset.mark;
        button.setAttribute("aria-label", `${symbol} ${mark}`);
        filter();
      });
      $("elements").append(button);
    }
    $("pick-elements").addEventListener("click", () => {
      $("elements").hidden = !$("elements").hidden;
      $("pick-elements").setAttribute("aria-expanded", !$("elements").hidden);
    });
    $("filter").addEventListener("input", filter);
  }
  const log = $("log");
  if (log) log.addEventListener("change", () => document.body.classList.toggle("logarithmic", log.checked));

  // Scatter plot.
  const canvas = $("scatter");
  if (canvas && points) {
    const tip = $("tip"), unzoom = $("unzoom"), count = points.id.length;
    const axes = Object.fromEntries(points.axes.map((a) => [a.name, a]));
    const pad = { left: 62, right: 14, top: 12, bottom: 44 };
    let x = points.x, y = points.y, xs, ys, view = null, shown = -1, drag = null, size = [0, 0];

    // Coordinates on the axes: on a logarithmic one the exponents, none where there is no logarithm.
    const logarithmic = (axis) => $(`${axis}-log`).checked;
    const along = (axis, name) => points.values[name].map((v) => (logarithmic(axis) && v !== null ? (v > 0 ? Math.log10(v) : null) : v));
    const range = (values) => {
      let low = Infinity, high = -Infinity;
      for (const v of values) if (v !== null) { if (v < low) low = v; if (v > high) high = v; }
      if (!(high > low)) return low < Infinity ? [low - 0.5, low + 0.5] : [0, 1];
      const margin = 0.03 * (high - low);
      return [low - margin, high + margin];
    };
    const steps = ([low, high], wanted) => {
      const raw = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(raw));
      const step = power * [1, 2, 2.5, 5, 10].find((m) => power * m >= raw * 0.999);
      const found = [];
      for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(+(i * step).toPrecision(10));
      return found;
    };
    const marks = (axis, [low, high]) => {
      if (!logarithmic(axis)) return steps([low, high], 7).map((t) => [t, String(t)]);
      const powers = high - low > 8 ? 2 : 1, digits = high - low > 3 ? [1] : high - low > 1 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7];
      const found = [];
      for (let k = Math.floor(low); k <= high; k += powers) for (const d of digits) found.push([k + Math.log10(d), `${+(d * 10 ** k).toPrecision(3)}`]);
      return found.filter(([t]) => t >= low && t <= high);
    };
    const place = () => {
      const [width, height] = size, [[x0, x1], [y0, y1]] = view;
      const sx = (width - pad.left - pad.right) / (x1 - x0), sy = (height - pad.top - pad.bottom) / (y1 - y0);
      return [(v) => pad.left + (v - x0) * sx, (v) => height - pad.bottom - (v - y0) * sy,
        (p) => x0 + (p - pad.left) / sx, (p) => y0 + (height - pad.bottom - p) / sy];
    };
    const label = (name) => axes[name].label + (axes[name].unit ? ` (${axes[name].unit})` : "");

    const draw = () => {
      const [g, width, height] = fit(canvas);
      size = [width, height];
      if (!view) {
        [xs, ys] = [along("x", x), along("y", y)];
        for (let i = 0; i < count; i++) if (xs[i] === null || ys[i] === null) xs[i] = ys[i] = null;
        view = [range(xs), range(ys)];
      }
      const [px, py] = place();
      g.clearRect(0, 0, width, height);
      g.font = "12px system-ui, sans-serif";
      g.lineWidth = 1;
      g.strokeStyle = css("--line");
      g.fillStyle = css("--muted");
      g.textAlign = "center";
      for (const [t, text] of marks("x", view[0])) {
        const at = Math.round(px(t)) + 0.5;
        g.beginPath(); g.moveTo(at, pad.top); g.lineTo(at, height - pad.bottom); g.stroke();
        g.fillText(text.replace("-", "\u2212"), at, height - pad.bottom + 17);
      }
      g.textAlign = "right";
      for (const [t, text] of marks("y", view[1])) {
        const at = Math.round(py(t)) + 0.5;
        g.beginPath(); g.moveTo(pad.left, at); g.lineTo(width - pad.right, at); g.stroke();
        g.fillText(text.replace("-", "\u2212"), pad.left - 8, at + 4);
      }
      g.fillStyle = css("--ink");
      g.font = "13px system-ui, sans-serif";
      g.textAlign = "center";
      g.fillText(label(x), (pad.left + width - pad.right) / 2, height - 7);
      g.save();
      g.translate(14, (pad.top + height - pad.bottom) / 2);
      g.rotate(-Math.PI / 2);
      g.fillText(label(y), 0, 0);
      g.restore();
      g.save();
      g.beginPath();
      g.rect(pad.left - 4, pad.top - 4, width - pad.left - pad.right + 8, height - pad.top - pad.bottom + 8);
      g.clip();
      const dot = (i, radius) => { g.beginPath(); g.arc(px(xs[i]), py(ys[i]), radius, 0, 7); };
      const small = count > 8000 ? 1.7 : count > 1500 ? 2.2 : 3;
      const colours = [css("--out"), css("--point"), css("--pick"), css("--card")];
      const each = (wanted, paint) => {
        for (let i = 0; i < count; i++) {
          if (xs[i] === null) continue;
          const kind = points.rank && points.rank[i] ? 2 : points.inside && points.inside[i] !== "1" ? 0 : 1;
          if (kind === wanted) paint(i);
        }
      };
      g.globalAlpha = 0.55;
      g.fillStyle = colours[1];
      each(1, (i) => { dot(i, small); g.fill(); });
      g.globalAlpha = 0.8;
      g.strokeStyle = colours[0];
      each(0, (i) => { dot(i, small); g.stroke(); });
      g.globalAlpha = 1;
      g.fillStyle = colours[2];
      g.strokeStyle = colours[3];
      each(2, (i) => { dot(i, small + 1.6); g.fill(); g.stroke(); });
      if (shown >= 0 && xs[shown] !== null) {
        g.strokeStyle = css("--ink");
        g.lineWidth = 2;
        dot(shown, small + 4);
        g.stroke();
      }
      g.restore();
      if (drag && drag.to) {
        g.fillStyle = css("--accent");
        g.globalAlpha = 0.15;
        g.fillRect(drag.from[0], drag.from[1], drag.to[0] - drag.from[0], drag.to[1] - drag.from[1]);
        g.globalAlpha = 1;
      }
      unzoom.hidden = !zoomed;
    };
    let zoomed = false;

    const line = (key, text) => {
      const row = document.createElement("div"), name = document.createElement("span");
      name.className = "k";
      name.textContent = key;
      row.append(name, text);
      return row;
    };
    const show = (i) => {
      shown = i;
      tip.hidden = i < 0;
      if (i >= 0) {
        const head = document.createElement("b");
        head.textContent = points.formula[i];
        const rows = [line("id", points.id[i])];
        for (const a of points.axes) {
          if (a.name !== "natoms") rows.push(line(a.label, `${number(points.values[a.name][i])} ${a.unit}`));
        }
        if (points.inside) rows.push(line("domain", ["outside", "inside", "unknown"][points.inside[i]]));
        if (points.rank && points.rank[i]) rows.push(line("shortlist", `no. ${points.rank[i]}`));
        tip.replaceChildren(head, ...rows);
        const [px, py] = place(), left = px(xs[i]), top = py(ys[i]);
        tip.style.left = `${Math.min(left + 14, Math.max(0, size[0] - tip.offsetWidth - 4))}px`;
        tip.style.top = `${top + 14 + tip.offsetHeight > size[1] ? top - tip.offsetHeight - 12 : top + 14}px`;
        if (left + 14 + tip.offsetWidth > size[0]) tip.style.left = `${Math.max(0, left - tip.offsetWidth - 14)}px`;
      }
      draw();
    };
    const nearest = (mx, my) => {
      const [px, py] = place();
      let best = -1, least = 14 * 14;
      for (let i = 0; i < count; i++) {
        if (xs[i] === null) continue;
        let d = (px(xs[i]) - mx) ** 2 + (py(ys[i]) - my) ** 2;
        if (points.rank && points.rank[i]) d *= 0.5;
        if (d < least) { least = d; best = i; }
      }
      return best;
    };
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    canvas.addEventListener("pointerdown", (event) => { drag = { from: at(event), to: null }; });
    canvas.addEventListener("pointermove", (event) => {
      const here = at(event);
      if (drag && (drag.to || Math.hypot(here[0] - drag.from[0], here[1] - drag.from[1]) > 6)) {
        drag.to = here;
        show(-1);
        return;
      }
      const found = nearest(...here);
      if (found !== shown) show(found);
    });
    canvas.addEventListener("pointerup", (event) => {
      const done = drag;
      drag = null;
      if (done && done.to) {
        const [, , vx, vy] = place(), [a, b] = [done.from, at(event)];
        if (Math.abs(a[0] - b[0]) > 4 && Math.abs(a[1] - b[1]) > 4) {
          view = [[vx(Math.min(a[0], b[0])), vx(Math.max(a[0], b[0]))], [vy(Math.max(a[1], b[1])), vy(Math.min(a[1], b[1]))]];
          zoomed = true;
        }
        draw();
      } else if (shown >= 0 && points.rank && points.rank[shown]) {
        const row = $(`row-${points.rank[shown]}`);
        if (row) {
          row.scrollIntoView({ block: "center", behavior: "smooth" });
          document.querySelectorAll("tr.found").forEach((other) => other.classList.remove("found"));
          row.classList.add("found");
        }
      }
    });
    canvas.addEventListener("pointerleave", () => { drag = null; show(-1); });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      for (let i = shown, tries = 0; tries < count; tries++) {
        i = (i + step + count) % count;
        if (xs[i] !== null) { show(i); return; }
      }
    });
    const reset = () => { view = null; zoomed = false; show(-1); };
    unzoom.addEventListener("click", reset);
    $("x-axis").addEventListener("change", (event) => { x = event.target.value; reset(); });
    $("y-axis").addEventListener("change", (event) => { y = event.target.value; reset(); });
    ["x-log", "y-log"].forEach((name) => $(name).addEventListener("change", reset));
    redraws.push(draw);
    draw();
  }

  // Unit cells that turn.
  const viewer = $("viewer"), stage = $("stage");
  let scene = null, turn = null, held = null;
  const rotate = (m, dx, dy) => {
    const [c, s, k, t] = [Math.cos(dx), Math.sin(dx), Math.cos(dy), Math.sin(dy)];
    const spin = [[c, -s, 0], [s, c, 0], [0, 0, 1]], tip = [[1, 0, 0], [0, k, -t], [0, t, k]];
    const by = (a, b) => a.map((r) => [0, 1, 2].map((j) => r[0] * b[0][j] + r[1] * b[1][j] + r[2] * b[2][j]));
    return by(tip, by(spin, m));
  };
  const render = () => {
    if (!scene || !viewer.open) return;
    const [g, width, height] = fit(stage);
    const turned = (flat) => {
      const found = [];
      for (let i = 0; i < flat.length; i += 3) found.push(turn.map((r) => r[0] * flat[i] + r[1] * flat[i + 1] + r[2] * flat[i + 2]));
      return found;
    };
    const atoms = turned(scene.xyz), corners = turned(scene.corners);
    let reach = 1;
    [...atoms, ...corners].forEach((p) => { reach = Math.max(reach, Math.hypot(...p)); });
    const scale = Math.min(width, height) / 2 / (reach + 0.9);
    const flat = (p) => [width / 2 + p[0] * scale, height / 2 - p[2] * scale];
    const items = [];
    for (let i = 0; i < 8; i++) {
      for (const bit of [1, 2, 4]) {
        if (!(i & bit)) items.push([(corners[i][1] + corners[i | bit][1]) / 2, () => stroke(corners[i], corners[i | bit], css("--muted"), 1.2)]);
      }
    }
    const stroke = (a, b, colour, thick) => {
      g.strokeStyle = colour; g.lineWidth = thick; g.lineCap = "round";
      g.beginPath(); g.moveTo(...flat(a)); g.lineTo(...flat(b)); g.stroke();
    };
    for (let k = 0; k < scene.bonds.length; k += 2) {
      const [i, j] = [scene.bonds[k], scene.bonds[k + 1]], [a, b] = [atoms[i], atoms[j]];
      const middle = a.map((v, n) => (v + b[n]) / 2);
      const thick = Math.max(2, 0.14 * scale);
      items.push([(a[1] + middle[1]) / 2, () => stroke(a, middle, palette[scene.z[i]][1], thick)]);
      items.push([(b[1] + middle[1]) / 2, () => stroke(b, middle, palette[scene.z[j]][1], thick)]);
    }
    atoms.forEach((p, i) => {
      const [, colour, radius] = palette[scene.z[i]];
      items.push([p[1] - 0.01, () => {
        const [cx, cy] = flat(p), r = radius * scale;
        const shade = g.createRadialGradient(cx - r * 0.32, cy - r * 0.38, r * 0.05, cx, cy, r);
        shade.addColorStop(0, "#fff"); shade.addColorStop(0.35, colour); shade.addColorStop(1, colour);
        g.fillStyle = shade; g.strokeStyle = "rgb(0 0 0 / 45%)"; g.lineWidth = 0.8;
        g.beginPath(); g.arc(cx, cy, r, 0, 7); g.fill(); g.stroke();
      }]);
    });
    g.clearRect(0, 0, width, height);
    items.sort((a, b) => b[0] - a[0]).forEach(([, paint]) => paint());
  };
  document.querySelectorAll("[data-scene]").forEach((button) => button.addEventListener("click", () => {
    const row = button.closest("tr"), group = row.querySelector(".group");
    scene = scenes[button.dataset.scene];
    turn = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
    $("viewer-title").replaceChildren(...[...row.querySelector(".formula").childNodes].map((n) => n.cloneNode(true)));
    const copied = group ? [...group.childNodes].map((n) => n.cloneNode(true)) : [];
    $("viewer-text").replaceChildren(row.querySelector(".id").textContent, group ? "; " : "", ...copied);
    if (group && group.dataset.cell) $("viewer-text").append(`; ${group.dataset.cell}`);
    $("viewer-legend").replaceChildren(...[...new Set(scene.z)].flatMap((z) => {
      const dot = document.createElement("span");
      dot.className = "dot";
      dot.style.background = palette[z][1];
      return [dot, palette[z][0]];
    }));
    viewer.showModal();
    render();
  }));
  stage.addEventListener("pointerdown", (event) => { held = [event.clientX, event.clientY]; stage.setPointerCapture(event.pointerId); });
  stage.addEventListener("pointermove", (event) => {
    if (!held) return;
    turn = rotate(turn, (event.clientX - held[0]) * 0.01, (event.clientY - held[1]) * -0.01);
    held = [event.clientX, event.clientY];
    render();
  });
  stage.addEventListener("pointerup", () => { held = null; });
  stage.addEventListener("keydown", (event) => {
    const step = { ArrowRight: [0.12, 0], ArrowLeft: [-0.12, 0], ArrowUp: [0, 0.12], ArrowDown: [0, -0.12] }[event.key];
    if (!step) return;
    event.preventDefault();
    turn = rotate(turn, ...step);
    render();
  });
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  redraws.push(render);

  const again = () => redraws.forEach((draw) => draw());
  window.addEventListener("resize", again);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
})();
