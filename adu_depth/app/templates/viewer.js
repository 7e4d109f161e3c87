// Reads depth under the cursor. Events are taken at the document, and what was decoded is known by the number of its view:
// the page puts a new view into the elements of the old one.
(() => {
  const HINT = "Move the cursor over a picture, or choose one and use the arrow keys: its depth is read here.";
  let last = null;
  const floats = (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Float32Array(bytes.buffer);
  };
  const mapsOf = (view) => {
    const { number, height, width, rows, columns, depth, logScale, camera } = view.dataset;
    if (last?.number !== number) {
      last = {
        number, height: +height, width: +width, rows: +rows, columns: +columns, row: 0, column: 0,
        depth: floats(depth), logScale: logScale ? floats(logScale) : null,
        camera: camera ? camera.split(" ").map(Number) : null,
      };
    }
    return last;
  };
  const metres = (value) => `${value.toFixed(value < 10 ? 3 : 2)} m`;

  // What the numbers at one of the sent pixels say, short for the label and whole for the line above the pictures.
  const reading = (maps) => {
    const at = maps.row * maps.columns + maps.column;
    const column = Math.round(maps.column * (maps.width - 1) / Math.max(1, maps.columns - 1));
    const row = Math.round(maps.row * (maps.height - 1) / Math.max(1, maps.rows - 1));
    const depth = maps.depth[at];
    const place = `column ${column}, row ${row}: `;
    if (!(depth > 0 && Number.isFinite(depth))) return { short: "no depth", whole: `${place}no depth` };
    let whole = place + metres(depth);
    if (maps.logScale) whole += `, ± ${(100 * Math.exp(maps.logScale[at])).toPrecision(2)} % expected`;
    if (maps.camera) {
      const [fx, fy, cx, cy] = maps.camera;
      whole += `; x ${((column - cx) * depth / fx).toFixed(2)} m, y ${((row - cy) * depth / fy).toFixed(2)} m, z ${depth.toFixed(2)} m`;
    }
    return { short: metres(depth), whole };
  };

  const show = (panel, row, column) => {
    const view = panel.closest(".adu-view");
    const maps = mapsOf(view);
    maps.row = Math.min(maps.rows - 1, Math.max(0, row));
    maps.column = Math.min(maps.columns - 1, Math.max(0, column));
    const { short, whole } = reading(maps);
    view.querySelector(".adu-reading").textContent = whole;
    const x = 100 * (maps.column + 0.5) / maps.columns;
    const y = 100 * (maps.row + 0.5) / maps.rows;
    for (const other of view.querySelectorAll(".adu-panel")) {
      const [across, down, label] = ["adu-across", "adu-down", "adu-label"].map((name) => other.querySelector(`.${name}`));
      across.style.display = down.style.display = "block";
      across.style.top = `${y}%`;
      down.style.left = `${x}%`;
      label.style.display = other === panel ? "block" : "none";
      label.textContent = short;
      label.style.transform = `translate(${x > 50 ? "calc(-100% - 8px)" : "8px"}, ${y > 50 ? "calc(-100% - 8px)" : "8px"})`;
      label.style.left = `${x}%`;
      label.style.top = `${y}%`;
    }
  };

  const follow = (event) => {
    const panel = event.target.closest?.(".adu-panel");
    if (!panel) return;
    const box = panel.getBoundingClientRect();
    const maps = mapsOf(panel.closest(".adu-view"));
    show(panel, Math.floor((event.clientY - box.top) / box.height * maps.rows),
      Math.floor((event.clientX - box.left) / box.width * maps.columns));
  };
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const step = (event) => {
    const panel = event.target.closest?.(".adu-panel");
    const way = steps[event.key];
    if (!panel || !way) return;
    event.preventDefault();
    const far = event.shiftKey ? 10 : 1;
    const maps = mapsOf(panel.closest(".adu-view"));
    show(panel, maps.row + far * way[0], maps.column + far * way[1]);
  };
  // The marks of an old view would stand on the pictures of the new one.
  const begin = (view) => {
    if (view.dataset.begun === view.dataset.number) return;
    view.dataset.begun = view.dataset.number;
    view.querySelector(".adu-reading").textContent = HINT;
    for (const mark of view.querySelectorAll(".adu-across, .adu-down, .adu-label")) mark.style.display = "none";
  };
  new MutationObserver(() => document.querySelectorAll(".adu-view").forEach(begin)).observe(
    document, { subtree: true, childList: true, attributes: true, attributeFilter: ["data-number"] });
  document.addEventListener("pointermove", follow);
  document.addEventListener("pointerdown", follow);
  document.addEventListener("keydown", step);
})();
