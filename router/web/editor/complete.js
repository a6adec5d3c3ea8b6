// What can be written at a place of a rules file.

// where says how the place lies in the file: the path of keys to it ("*" for an
// entry of a list), whether a value or a key stands there, and the value so far.
export function where(lines, n, column) {
  const before = lines[n].slice(0, column);
  const lead = before.match(/^\s*(?:-\s+)*/)[0];
  const path = above(lines, n, lead);
  const flow = [];
  let key = null, text = "", quote = "";
  for (let i = lead.length; i < before.length; i++) {
    const c = before[i];
    if (quote) {
      if (c === quote) quote = "";
      text += c;
    } else if (c === "#" && /(^|\s)$/.test(before.slice(0, i))) return null;
    else if ((c === '"' || c === "'") && text.trim() === "") quote = c, text += c;
    else if ((c === "{" || c === "[") && text.trim() === "") flow.push({ list: c === "[", key }), key = null, text = "";
    else if ((c === "}" || c === "]") && flow.length) key = flow.pop().key, text = " ";
    else if (c === "," && flow.length && !open(text)) key = null, text = "";
    else if (c === ":" && key === null && /^(\s|$)/.test(before.slice(i + 1))) key = bare(text), text = "";
    else text += c;
  }
  for (const f of flow) {
    if (f.key !== null) path.push(f.key);
    if (f.list) path.push("*");
  }
  if (key !== null) path.push(key);
  return { path, value: key !== null || flow.at(-1)?.list === true, text: text.trimStart() };
}

const open = (text) => (text.match(/\(/g) ?? []).length > (text.match(/\)/g) ?? []).length;
const bare = (text) => text.trim().replace(/^(["'])(.*)\1$/, "$2");

// above is the path to a line: the keys of the lines above that it lies in.
function above(lines, n, lead) {
  const path = [];
  let indent = lead.length;
  const dashes = (text, from) => {
    for (let i = Math.min(text.length, from) - 1; i >= 0; i--) if (text[i] === "-" && i < indent) path.unshift("*"), indent = i;
  };
  dashes(lead, lead.length);
  for (let i = n - 1; i >= 0 && (indent > 0 || path[0] === "*"); i--) {
    const m = lines[i].match(/^(\s*(?:-\s+)*)(?:("[^"]*"|'[^']*'|[^\s#"'{[-][^:]*):(?:\s|$))?/);
    if (!m || lines[i].trim() === "" || lines[i].trim()[0] === "#") continue;
    const at = m[1].length;
    if (m[2] !== undefined && (at < indent || at === indent && path[0] === "*" && !/-/.test(m[1]))) path.unshift(bare(m[2])), indent = at;
    dashes(m[1], at);
  }
  return path;
}

// schemaAt gives the parts of the schema that hold at a path.
function schemaAt(root, path) {
  const spread = (s) => {
    if (!s || typeof s !== "object") return [];
    if (s.$ref) return spread(root.definitions[s.$ref.split("/").pop()]);
    return [s, ...["anyOf", "oneOf", "allOf"].flatMap((k) => s[k] ?? []).flatMap(spread)];
  };
  return path.reduce((now, key) => now.flatMap((s) => spread(key === "*" ? s.items : s.properties?.[key] ?? (typeof s.additionalProperties === "object" && s.additionalProperties))), spread(root));
}

// section gives the lines below a key at the left edge, of all files.
const section = (texts, key) => texts.flatMap((t) => (t.match(new RegExp(`^${key}:.*\\n((?:[ \\t-].*\\n|\\s*\\n|#.*\\n)*)`, "m"))?.[1] ?? "").split("\n"));

function labelsOf(texts) {
  const lines = section(texts, "labels");
  const indent = lines.find((l) => /^\s*[^\s#]/.test(l))?.match(/^\s*/)[0].length;
  const keys = lines.map((l) => l.match(/^(\s*)("[^"]*"|'[^']*'|[^\s:#]+):/)).filter((m) => m && m[1].length === indent).map((m) => bare(m[2]));
  for (const m of texts.join("\n").matchAll(/^labels:\s*\{(.*)\}/gm)) for (const k of m[1].matchAll(/([\w.=*-]+|"[^"]*"):\s*\{/g)) keys.push(bare(k[1]));
  return keys;
}

const rulesOf = (texts) => section(texts, "rules").map((l) => l.match(/^\s*-\s+(?:\{\s*)?name:\s*([\w.-]+)/)?.[1]).filter(Boolean);

const options = (names, type) => names.map((label) => ({ label, type }));

export function complete(context, words, texts) {
  const { state, pos } = context;
  const line = state.doc.lineAt(pos);
  const lines = state.doc.sliceString(0, line.to).split("\n");
  const at = where(lines, lines.length - 1, pos - line.from);
  if (!at) return null;
  const name = at.path.findLast((k) => k !== "*");
  const inExpression = /\$\{\{(?!.*\}\}).*$/.test(at.text);
  if (name === "if" || name === "scope" || inExpression) {
    const inLabel = ((line.text.slice(0, pos - line.from).replace(/^[^:]*:\s*/, "").match(/"/g) ?? []).length % 2) === 1;
    const word = context.matchBefore(inLabel ? /[\w.=*-]*/ : /[\w.]*/);
    if (word.from === word.to && !context.explicit && !inLabel) return null;
    if (inLabel) return { from: word.from, options: options(labelsOf(texts), "constant") };
    return {
      from: word.from, validFor: /^[\w.]*$/,
      options: [...options(words.variables, "variable"), ...words.functions.map((f) => ({ label: f, apply: f + "(", type: "function" })), ...options(["and", "or", "not", "in"], "keyword")],
    };
  }
  const word = context.matchBefore(/[\w.=*-]*/);
  if (word.from === word.to && !context.explicit) return null;
  const schema = schemaAt(words.schema, at.path);
  if (!at.value) {
    const seen = new Map();
    for (const s of schema) for (const [key, of] of Object.entries(s.properties ?? {})) seen.set(key, of.description);
    return { from: word.from, validFor: /^[\w.-]*$/, options: [...seen].map(([label, info]) => ({ label, info, apply: label + ": ", type: "property" })) };
  }
  let values = schema.flatMap((s) => s.enum ?? (s.type === "boolean" ? ["true", "false"] : [])).map(String);
  if (name === "jobspec") values = words.jobspecs;
  if (name === "rule") values = rulesOf(texts);
  if (name === "labels" && at.path.includes("tests")) values = labelsOf(texts);
  return values.length ? { from: word.from, validFor: /^[\w.=*-]*$/, options: options(values, "constant") } : null;
}
