// The editor of the Rules page. It takes the place of the text areas, which keep
// what is sent: the page works without it.
import { EditorState } from "@codemirror/state";
import {
  EditorView, highlightActiveLine, highlightActiveLineGutter, highlightSpecialChars, keymap, lineNumbers,
} from "@codemirror/view";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { HighlightStyle, StreamLanguage, indentOnInput, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap } from "@codemirror/autocomplete";
import { lintGutter, lintKeymap, setDiagnostics } from "@codemirror/lint";
import { search, searchKeymap } from "@codemirror/search";
import { yaml } from "@codemirror/legacy-modes/mode/yaml";
import { tags } from "@lezer/highlight";
import { complete } from "./complete.js";

const form = document.getElementById("draft");
const place = document.getElementById("editor");
const areas = [...document.querySelectorAll(".draft-file")];

const look = EditorView.theme({
  "&": { color: "var(--text)", backgroundColor: "var(--card)", fontSize: ".87rem" },
  "&.cm-focused": { outline: "2px solid var(--focus)", outlineOffset: "-2px" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.5", minHeight: "16rem", maxHeight: "70vh", overflow: "auto" },
  ".cm-content": { caretColor: "var(--text)" },
  ".cm-gutters": { backgroundColor: "var(--raised)", color: "var(--soft)", border: "0" },
  ".cm-activeLine": { backgroundColor: "color-mix(in srgb, var(--raised) 55%, transparent)" },
  ".cm-activeLineGutter": { backgroundColor: "var(--line)" },
  ".cm-searchMatch": { backgroundColor: "color-mix(in srgb, var(--wait) 30%, transparent)" },
  ".cm-panels, .cm-tooltip": { backgroundColor: "var(--raised)", color: "var(--text)", border: "1px solid var(--line)" },
  ".cm-tooltip-autocomplete ul li[aria-selected]": { backgroundColor: "var(--accent)", color: "var(--accent-text)" },
  ".cm-completionInfo": { maxWidth: "26rem", padding: ".3rem .6rem" },
  ".cm-completionMatchedText": { textDecoration: "none", fontWeight: "700" },
  ".cm-diagnostic": { padding: ".3rem .7rem", whiteSpace: "pre-wrap", maxWidth: "40rem" },
  ".cm-diagnostic-error": { borderLeftColor: "var(--bad)" },
  ".cm-diagnostic-warning": { borderLeftColor: "var(--wait)" },
  ".cm-lintRange-error": { backgroundImage: "none", textDecoration: "underline wavy var(--bad)" },
  ".cm-lintRange-warning": { backgroundImage: "none", textDecoration: "underline wavy var(--wait)" },
  // The marks of the library are images of the kind that the page's policy forbids.
  ".cm-lint-marker-error, .cm-lint-marker-warning": { content: "normal", height: ".8em", width: ".8em", marginTop: ".3em" },
  ".cm-lint-marker-error": { borderRadius: "50%", backgroundColor: "var(--bad)" },
  ".cm-lint-marker-warning": { borderRadius: "2px", backgroundColor: "var(--wait)" },
  ".cm-textfield, .cm-button": { backgroundImage: "none", backgroundColor: "var(--card)", color: "var(--text)", border: "1px solid var(--line)", borderRadius: "6px" },
});
const colours = HighlightStyle.define([
  { tag: [tags.atom, tags.bool, tags.number], color: "var(--busy)" },
  { tag: tags.string, color: "var(--good)" },
  { tag: [tags.keyword, tags.propertyName, tags.definition(tags.propertyName)], color: "var(--accent)" },
  { tag: tags.meta, color: "var(--soft)" },
  { tag: tags.comment, color: "var(--soft)", fontStyle: "italic" },
]);

// Typing over a selection, the browser would leave styles of it behind, which
// the content policy refuses, and say so on the console.
const typeOver = EditorView.domEventHandlers({
  beforeinput(event, view) {
    const { from, to, empty } = view.state.selection.main;
    if (event.inputType !== "insertText" || !event.data || event.isComposing || empty) return false;
    event.preventDefault();
    const put = () => view.state.update(view.state.replaceSelection(event.data), { userEvent: "input.type", scrollIntoView: true });
    if (!view.state.facet(EditorView.inputHandler).some((handle) => handle(view, from, to, event.data, put))) view.dispatch(put());
    return true;
  },
});

let words = { schema: {}, variables: [], functions: [], jobspecs: [] };
const texts = () => files.map((f) => (f === shown && view ? view.state.doc : f.state.doc).toString());

const files = areas.map((area) => {
  const file = { name: area.dataset.file, source: area.querySelector("textarea"), found: [] };
  file.state = EditorState.create({
    doc: file.source.value,
    extensions: [
      EditorView.cspNonce.of(place.dataset.nonce),
      lineNumbers(), highlightActiveLineGutter(), highlightSpecialChars(), history(), highlightActiveLine(),
      StreamLanguage.define(yaml), syntaxHighlighting(colours), indentUnit.of("  "), indentOnInput(), closeBrackets(), typeOver,
      autocompletion({ override: [(c) => complete(c, words, texts())] }), lintGutter(), search({ top: true }),
      keymap.of([...closeBracketsKeymap, ...searchKeymap, ...historyKeymap, ...completionKeymap, ...lintKeymap, ...defaultKeymap, indentWithTab]),
      EditorView.contentAttributes.of({ "aria-label": `Rules file ${file.name}. Tab indents; press Escape, then Tab to leave.`, spellcheck: "false" }),
      EditorView.updateListener.of((u) => { if (u.docChanged) changed(); }),
      look,
    ],
  });
  file.first = file.state.doc.toString();
  return file;
});

let shown = files[0], view;
let due = 0, asked, leaving = false;

function show(file) {
  if (!view) return;
  shown.state = view.state;
  shown = file;
  view.setState(file.state);
  mark();
  for (const tab of document.querySelectorAll(".tabs [role=tab]")) {
    tab.setAttribute("aria-selected", tab.textContent === file.name);
    tab.tabIndex = tab.textContent === file.name ? 0 : -1;
  }
  const link = document.querySelector(".tabs a");
  if (link) link.href = "/rules/files/" + encodeURIComponent(file.name);
}

function changed() {
  shown.source.value = view.state.doc.toString();
  clearTimeout(due);
  due = setTimeout(() => ask("check"), 500);
}

// The place of a finding, which counts characters where the editor counts UTF-16 units.
function offset(doc, line, column) {
  const l = doc.line(Math.min(Math.max(line, 1), doc.lines));
  const at = l.from + [...l.text].slice(0, Math.max(column - 1, 0)).join("").length;
  return Math.min(at, l.to);
}

function mark() {
  const doc = view.state.doc;
  view.dispatch(setDiagnostics(view.state, shown.found.map((f) => {
    const from = offset(doc, f.line, f.column);
    const line = doc.lineAt(from);
    const word = line.text.slice(from - line.from).match(/^(?:[\w.-]+|"[^"]*"?|'[^']*'?|\S+)/)?.[0].length ?? 0;
    const to = from + word;
    return { from: to === from && from > line.from ? from - 1 : from, to, severity: f.warning ? "warning" : "error", message: f.message };
  }).sort((a, b) => a.from - b.from)));
}

// received yields the text of an answer as it comes.
async function* received(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let part; !(part = await reader.read()).done;) yield part.value;
}

// ask has the server look at the draft, and shows what its page then says.
async function ask(what) {
  asked?.abort();
  const mine = (asked = new AbortController());
  const parts = what === "check" ? ["diagnostics"] : ["diagnostics", "impact"];
  const body = new URLSearchParams(new FormData(form));
  body.delete("over");
  body.set("do", what);
  for (const id of parts) document.getElementById(id).setAttribute("aria-busy", "true");
  try {
    const answer = await fetch("/rules", { method: "POST", body, signal: mine.signal });
    let text = "";
    for await (const part of received(answer)) {
      text += part;
      const jobs = text.match(/Jobs looked at so far:(?: <span>[^<]*<\/span>)* <span>([^<]*)<\/span>$/)?.[1];
      if (jobs && asked === mine) document.getElementById("impact").textContent = `Jobs looked at so far: ${jobs}`;
    }
    const page = new DOMParser().parseFromString(text, "text/html");
    for (const id of parts) {
      const now = page.getElementById(id), old = document.getElementById(id);
      if (now) old.replaceChildren(...now.childNodes);
      else old.textContent = page.querySelector(".note")?.textContent ?? "The server does not answer as it should; try again.";
    }
    read();
  } catch (e) {
    if (e.name !== "AbortError") document.getElementById(parts.at(-1)).textContent = "The server cannot be reached; try again.";
  } finally {
    if (asked === mine) for (const id of ["diagnostics", "impact"]) document.getElementById(id).removeAttribute("aria-busy");
  }
}

// read takes the findings from the page.
function read() {
  for (const f of files) f.found = [];
  for (const { dataset: d } of document.querySelectorAll("#diagnostics .finding")) {
    files.find((f) => f.name === d.file)?.found.push({ line: +d.line, column: +d.column, warning: "warning" in d, message: d.message });
  }
  mark();
}

if (form && files.length > 0) {
  view = new EditorView({ state: shown.state, parent: place });
  place.hidden = document.getElementById("keys").hidden = false;
  for (const area of areas) area.hidden = true;
  const tabs = document.createElement("div");
  tabs.className = "tabs";
  const list = document.createElement("div");
  list.className = "tabs";
  list.setAttribute("role", "tablist");
  list.setAttribute("aria-label", "Files");
  for (const file of files) {
    const tab = document.createElement("button");
    tab.type = "button";
    tab.textContent = file.name;
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", "editor");
    tab.addEventListener("click", () => { show(file); view.focus(); });
    list.append(tab);
  }
  list.addEventListener("keydown", (e) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (by) list.children[(files.indexOf(shown) + by + files.length) % files.length].focus(), show(files[(files.indexOf(shown) + by + files.length) % files.length]);
  });
  const link = document.createElement("a");
  link.className = "small";
  link.textContent = "Download";
  link.setAttribute("download", "");
  tabs.append(list, link);
  place.before(tabs);
  show(shown);
  read();

  form.addEventListener("submit", (e) => {
    const what = e.submitter?.value;
    if (what === "check" || what === "impact") {
      e.preventDefault();
      clearTimeout(due);
      ask(what);
    } else leaving = true;
  });
  document.addEventListener("click", (e) => {
    const at = e.target.closest("a.place")?.closest(".finding")?.dataset;
    const file = at && files.find((f) => f.name === at.file);
    if (!file) return;
    e.preventDefault();
    show(file);
    const pos = offset(view.state.doc, +at.line, +at.column);
    view.dispatch({ selection: { anchor: pos }, effects: EditorView.scrollIntoView(pos, { y: "center" }) });
    view.focus();
  });
  addEventListener("beforeunload", (e) => {
    if (!leaving && files.some((f, i) => texts()[i] !== f.first)) e.preventDefault();
  });
  fetch("/api/v1/rules/schema").then((a) => a.ok && a.json()).then((w) => { if (w) words = w; }).catch(() => {});
  if (!document.querySelector("#diagnostics .finding, #diagnostics .state")) ask("check");
}
