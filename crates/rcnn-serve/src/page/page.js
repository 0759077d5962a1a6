// Sends a picture to the server and draws what was found. All filters work on one answer, at the model's
// lowest score.

const $ = (id) => document.getElementById(id);

let model = null;
let answer = null; // The server's record of the picture.
let fileName = "photo.jpg";
let current = null; // The object that is pointed out.
let request = null; // The one under way, to be given up for another.
const hidden = new Set(); // Labels that are not shown.
const SVG = "http://www.w3.org/2000/svg";

// Words and messages

function show(error) {
  $("error").textContent = error;
  $("error").hidden = !error;
}

function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

function shape(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

// Neighbouring labels get hues far apart.
const colour = (label) => `hsl(${Math.round((label * 137.508 + 20) % 360)} 75% 38%)`;

const coloured = (node, label) => {
  node.style.setProperty("--colour", colour(label));
  return node;
};

// The server

async function ask(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer.");
  }
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  if (response.status === 401) {
    sessionStorage.removeItem("token");
    $("access").hidden = false;
    $("token").focus();
  }
  const sentence = body.error ?? `The server answered ${response.status}.`;
  throw Object.assign(new Error(sentence), { status: response.status });
}

async function askForModel() {
  const token = sessionStorage.getItem("token");
  try {
    model = await ask("model");
  } catch (error) {
    if (error.status === 503) {
      $("model").textContent = "The model is being loaded …";
      setTimeout(askForModel, 1000);
    } else if (error.status === 401) {
      $("model").textContent = "";
      // Whoever has not given one yet did nothing wrong.
      show(token ? error.message : "");
    } else {
      show(error.message);
    }
    return;
  }
  show("");
  $("access").hidden = true;
  const classes = model.num_classes - 1;
  $("model").textContent =
    `${model.name} · ${model.backbone} · ${classes} ${classes === 1 ? "class" : "classes"} · ${model.device}`;
  const lowest = Math.ceil(model.score_thresh * 100) / 100;
  $("threshold").min = lowest;
  $("threshold").value = Math.max(0.5, lowest);
  for (const [layer, has] of [["masks", model.masks], ["keypoints", Boolean(model.keypoints)]]) {
    $("layers").querySelector(`[value="${layer}"]`).parentElement.hidden = !has;
  }
  draw();
}

async function detect(file) {
  const name = file.name || "pasted.png";
  const most = model?.limits.body_bytes;
  if (file.size > most) {
    show(`${name} has ${megabytes(file.size)}; this server reads ${megabytes(most)} at most.`);
    return;
  }
  request?.abort();
  request = new AbortController();
  const { signal } = request;
  answer = null;
  current = null;
  hidden.clear();
  show("");
  fileName = name;
  showPicture(file);
  $("busy").hidden = false;
  $("panel").hidden = true;
  $("status").textContent = "Looking …";
  const start = performance.now();
  try {
    const query = new URLSearchParams({ masks: "polygon", name: fileName });
    [answer] = await ask(`detect?${query}`, { method: "POST", body: file, signal });
    const seconds = ((performance.now() - start) / 1000).toFixed(2);
    $("figure").dataset.seconds = seconds;
    draw();
  } catch (error) {
    if (error.name === "AbortError") return;
    $("status").textContent = "";
    show(error.message);
  }
  $("busy").hidden = true;
}

const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

function showPicture(file) {
  const picture = $("picture");
  URL.revokeObjectURL(picture.src);
  $("frame").classList.remove("blank");
  $("shapes").replaceChildren();
  $("tags").replaceChildren();
  picture.alt = fileName;
  picture.src = URL.createObjectURL(file);
  $("drop").hidden = true;
  $("figure").hidden = false;
}

// A format that the server reads and this browser does not, such as TIFF: a blank of its size.
$("picture").addEventListener("error", () => {
  $("frame").classList.add("blank");
  if (answer) blank();
});

function blank() {
  const { width, height } = answer;
  const svg = `<svg xmlns="${SVG}" width="${width}" height="${height}"/>`;
  $("picture").src = `data:image/svg+xml,${encodeURIComponent(svg)}`;
}

// What is shown

const threshold = () => Number($("threshold").value);

const shown = () =>
  answer.detections.filter((d) => d.score > threshold() && !hidden.has(d.label));

function draw() {
  $("threshold-value").textContent = threshold().toFixed(2);
  if (!answer) return;
  if ($("frame").classList.contains("blank") && !$("picture").src.startsWith("data:")) blank();
  const objects = shown();
  drawShapes(objects);
  listClasses();
  listObjects(objects);
  const record = { ...answer, detections: objects };
  $("json").value = `[${JSON.stringify(record, null, 1).replace(/\n +(?=[\d.\-\]])/g, " ")}]`;
  const access = sessionStorage.getItem("token") ? ` -H "Authorization: Bearer $RCNN_TOKEN"` : "";
  $("command").textContent =
    `curl --data-binary @${quoted(fileName)}${access} '${new URL("detect", location)}?score_thresh=${threshold()}'`;
  const all = answer.detections.filter((d) => d.score > threshold()).length;
  const of = objects.length < all ? ` of ${all}` : "";
  const noun = objects.length === 1 ? "object" : "objects";
  const { width, height } = answer;
  const blankNote = $("frame").classList.contains("blank") ? ", which this browser cannot show" : "";
  $("status").textContent =
    `${objects.length}${of} ${noun} · ${width} × ${height} pixels${blankNote} · ${$("figure").dataset.seconds} s`;
  $("panel").hidden = false;
}

const quoted = (name) => (/^[\w./-]+$/.test(name) ? name : `'${name.replaceAll("'", `'\\''`)}'`);

function drawShapes(objects) {
  const { width, height } = answer;
  const svg = $("shapes");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  const layers = new Set([...$("layers").querySelectorAll(":checked")].map((box) => box.value));
  const area = ({ box: [x1, y1, x2, y2] }) => (x2 - x1) * (y2 - y1);
  // Small objects over large ones, so that each can be pointed at.
  const groups = objects.toSorted((a, b) => area(b) - area(a)).map((object) => {
    const group = coloured(shape("g", { "data-label": object.label }), object.label);
    group.classList.toggle("current", object === current);
    if (layers.has("masks")) group.append(...masks(object));
    if (layers.has("boxes")) {
      const [x1, y1, x2, y2] = object.box;
      const box = shape("rect", { class: "box", x: x1, y: y1, width: x2 - x1, height: y2 - y1 });
      box.addEventListener("click", () => point(object));
      group.append(box);
    }
    if (layers.has("keypoints")) group.append(...joints(object));
    return group;
  });
  svg.replaceChildren(...groups);
  const tags = layers.has("names") ? objects.map((object) => tag(object, width, height)) : [];
  $("tags").replaceChildren(...tags);
  keepInside();
}

// Tags have one size on every screen, so their places depend on that of the picture.
function keepInside() {
  const { clientWidth: width } = $("frame");
  const tags = [...$("tags").children];
  const places = tags.map((node) => [node.offsetLeft + node.offsetWidth > width, node.offsetTop - node.offsetHeight < 0]);
  tags.forEach((node, index) => {
    const [isWide, isHigh] = places[index];
    if (isWide) {
      node.style.left = "auto";
      node.style.right = "0";
    }
    node.classList.toggle("inside", isHigh);
  });
}
new ResizeObserver(() => answer && drawShapes(shown())).observe($("frame"));

function masks({ segmentation }) {
  if (!Array.isArray(segmentation)) return [];
  const outline = segmentation.map((corners) => {
    const points = [];
    for (let i = 0; i < corners.length; i += 2) points.push(`${corners[i]} ${corners[i + 1]}`);
    return `M${points.join("L")}Z`;
  });
  return [shape("path", { class: "mask", "fill-rule": "evenodd", d: outline.join("") })];
}

function joints({ keypoints }) {
  if (!keypoints) return [];
  const at = (index) => keypoints.slice(3 * index, 3 * index + 3);
  const edges = model?.keypoints?.skeleton ?? [];
  const bones = edges.map((edge) => edge.map(at)).filter((ends) => ends.every(([, , seen]) => seen > 0));
  const lines = bones.map(([[x1, y1], [x2, y2]]) => shape("line", { class: "bone", x1, y1, x2, y2 }));
  const dots = [];
  for (let index = 0; index < keypoints.length / 3; index++) {
    const [x, y, seen] = at(index);
    // A line without length and round ends is a dot of the same size at every scale.
    const dot = { x1: x, y1: y, x2: x, y2: y };
    if (seen > 0) dots.push(shape("line", { class: "joint", ...dot }), shape("line", { class: "joint inner", ...dot }));
  }
  return [...lines, ...dots];
}

function tag(object, width, height) {
  const [x1, y1] = object.box;
  const node = element("div", { className: "tag", textContent: `${object.name} ${object.score.toFixed(2)}` });
  node.style.left = `${(100 * x1) / width}%`;
  node.style.top = `${(100 * y1) / height}%`;
  node.classList.toggle("current", object === current);
  return coloured(node, object.label);
}

function listClasses() {
  const counts = new Map();
  for (const { label, name, score } of answer.detections) {
    const entry = counts.get(label) ?? { label, name, count: 0 };
    entry.count += score > threshold() ? 1 : 0;
    counts.set(label, entry);
  }
  const classes = [...counts.values()].sort((a, b) => a.label - b.label);
  const known = $("classes").querySelectorAll("input");
  const same = known.length === classes.length && classes.every((c, i) => Number(known[i].value) === c.label);
  if (!same) {
    // Only for another picture: a check box that is replaced loses the focus.
    $("classes").querySelectorAll(".class").forEach((node) => node.remove());
    $("classes").append(...classes.map(({ label, name }) => {
      const box = element("input", { type: "checkbox", value: label });
      box.addEventListener("change", () => {
        box.checked ? hidden.delete(label) : hidden.add(label);
        draw();
      });
      const swatch = coloured(element("span", { className: "swatch" }), label);
      const text = element("span", { className: "name", textContent: name });
      return element("label", { className: "class" }, box, swatch, text, element("span", { className: "count" }));
    }));
  }
  $("classes").querySelectorAll(".class").forEach((node, index) => {
    node.querySelector("input").checked = !hidden.has(classes[index].label);
    node.querySelector(".count").textContent = classes[index].count;
  });
}

function listObjects(objects) {
  const items = objects.map((object) => {
    const button = element("button", { type: "button" },
      element("span", { className: "swatch" }),
      element("span", { className: "name", textContent: object.name }),
      element("span", { className: "meter" }, element("i")),
      element("span", { className: "score", textContent: object.score.toFixed(2) }));
    button.style.setProperty("--part", `${100 * object.score}%`);
    button.setAttribute("aria-pressed", object === current);
    button.addEventListener("click", () => point(object, true));
    return element("li", {}, coloured(button, object.label));
  });
  $("objects").replaceChildren(...items);
  $("nothing").hidden = objects.length > 0;
}

// Points an object out, or no longer. Whoever came from the list stays there.
function point(object, fromList = false) {
  const index = shown().indexOf(object);
  current = object === current ? null : object;
  draw();
  const list = $("objects");
  const item = list.children[index];
  if (fromList) item.firstChild.focus();
  // Only the list is scrolled: on a phone the picture would go away.
  else list.scrollTop = item.offsetTop - list.offsetTop - list.clientHeight / 2;
}

// Ways for a picture to get here

function take(files) {
  const file = files?.[0];
  if (file) detect(file);
}

$("file").addEventListener("change", (event) => {
  take(event.target.files);
  // So that the same file can be chosen again.
  event.target.value = "";
});

document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) {
    event.preventDefault();
    take(event.clipboardData.files);
  }
});

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const { files } = event.dataTransfer;
  files.length ? take(files) : show("That is not a file. Save the picture first, or copy and paste it.");
});

// Controls

$("threshold").addEventListener("input", draw);
$("layers").addEventListener("change", draw);
$("all").addEventListener("click", () => {
  hidden.clear();
  draw();
});
$("none").addEventListener("click", () => {
  answer.detections.forEach(({ label }) => hidden.add(label));
  draw();
});

// Arrow keys go through the objects.
$("objects").addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const buttons = [...$("objects").querySelectorAll("button")];
  buttons[buttons.indexOf(document.activeElement) + step]?.click();
});

$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText($("json").value);
  } catch {
    // Without HTTPS browsers have no clipboard for scripts.
    $("json").select();
    document.execCommand("copy");
  }
  $("copy").textContent = "Copied";
  setTimeout(() => ($("copy").textContent = "Copy"), 1500);
});

$("download").addEventListener("click", () => {
  const link = $("download");
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([$("json").value], { type: "application/json" }));
  link.download = `${fileName.replace(/\.\w+$/, "")}.json`;
});

$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value);
  $("token").value = "";
  askForModel();
});

askForModel();
