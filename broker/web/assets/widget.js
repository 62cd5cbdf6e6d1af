// <laneway-task src="https://broker.example/observe/TOKEN">Your report</laneway-task>: see docs/widget.md.
const WORDS = { waiting: "Waiting", queued: "Queued", running: "Running", done: "Done", dead: "Failed",
  cancelled: "Cancelled", away: "Reconnecting", gone: "Not available" };
// A browser has six connections to a host: further elements ask now and then, and so do hidden pages.
const STREAMS_MAX = 4, ASKS = 10, ASK_MS = 3000;
let streams = 0;
const sheet = new CSSStyleSheet();
sheet.replaceSync(`
:host { display: block; color: var(--laneway-ink, light-dark(#191f2b, #e3e7ee)); --tone: var(--dim);
  --dim: var(--laneway-dim, light-dark(#545e70, #a0a9b8)); --line: var(--laneway-line, light-dark(#e2e5ea, #2b323e)); }
:host([hidden]), :empty:not([part=fill], slot) { display: none; }
:host([state=running]) { --tone: var(--laneway-accent, light-dark(#3451c6, #91a7ff)); }
:host([state=done]) { --tone: var(--laneway-good, light-dark(#0b7d62, #45c3a2)); }
:host([state=dead]) { --tone: var(--laneway-bad, light-dark(#c2321f, #ff8570)); }
[part=box] { display: grid; gap: .55em; padding: .8em 1em; border: 1px solid var(--line); border-radius: var(--laneway-radius, .5em);
  background: var(--laneway-surface, light-dark(#fff, #161a21)); overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
[part=head] { display: flex; gap: .75em; }
[part=label] { flex: 1; font-weight: 600; }
[part=state] { color: var(--tone); font-weight: 600; }
[part=percent], [part=note] { color: var(--dim); }
[part=note] { font-size: .875em; }
[part=bar] { height: .4em; border-radius: 1em; overflow: hidden; background: var(--line); }
[part=fill] { height: 100%; width: 0; background: var(--tone); transition: width .4s; }
.open { width: 30%; animation: pass 2s infinite; }
@keyframes pass { from { transform: translateX(-110%); } to { transform: translateX(340%); } }
@media (prefers-reduced-motion) { .open { animation: none; width: 100%; opacity: .4; } }`);

function make(part, props, ...inner) {
  const element = Object.assign(document.createElement("div"), { part, ...props });
  element.append(...inner);
  return element;
}

customElements.get("laneway-task") ?? customElements.define("laneway-task", class extends HTMLElement {
  static observedAttributes = ["src"];
  #stream;
  #timer;
  #last;
  #over = false;
  #turn = 0; // Answers to an earlier one are not heard.
  #asks = 0; // So many before the next stream.
  #start = () => this.#open();
  #state = make("state", { role: "status" });
  #percent = make("percent");
  #note = make("note");
  #fill = make("fill");
  #bar = make("bar", { role: "progressbar", ariaLabel: "Progress" }, this.#fill);

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" }), label = make("label", {}, document.createElement("slot"));
    root.adoptedStyleSheets = [sheet];
    root.append(make("box", {}, make("head", {}, label, this.#percent, this.#state), this.#bar, this.#note));
  }

  connectedCallback() {
    document.addEventListener("visibilitychange", this.#start);
    this.#open();
  }

  disconnectedCallback() {
    document.removeEventListener("visibilitychange", this.#start);
    this.#shut();
  }

  attributeChangedCallback() {
    this.#last = undefined;
    this.#over = false;
    if (this.#turn) this.#open();
  }

  #open() {
    this.#shut();
    const src = this.getAttribute("src");
    if (!src || this.#over || !this.isConnected) return;
    if (document.hidden || streams >= STREAMS_MAX || this.#asks-- > 0) return this.#ask(src);
    streams++;
    const stream = this.#stream = new EventSource(`${src}/events`);
    stream.onopen = () => this.#last && this.#show(this.#last);
    stream.onmessage = (event) => this.#show(JSON.parse(event.data));
    stream.addEventListener("end", stream.onmessage);
    stream.addEventListener("gone", (event) => this.#gone(JSON.parse(event.data)));
    stream.onerror = () => {
      this.#say("away");
      if (stream.readyState < 2) return;
      // The browser tries no more: questions tell why, and do for a while.
      this.#shut();
      this.#asks = ASKS;
      this.#ask(src);
    };
  }

  #shut() {
    this.#turn++;
    clearTimeout(this.#timer);
    if (!this.#stream) return;
    this.#stream.close();
    this.#stream = undefined;
    streams--;
  }

  async #ask(src) {
    const turn = this.#turn;
    const answer = await fetch(`${src}/state`, { credentials: "omit", cache: "no-store" }).catch(() => {});
    const told = await answer?.json().catch(() => {});
    if (turn !== this.#turn) return;
    if (!told || answer.status >= 500) this.#say("away");
    else if (answer.ok) this.#show(told);
    else this.#gone(told);
    const wait = ASK_MS * (document.hidden ? 10 : 1 + Math.random() / 2);
    if (!this.#over) this.#timer = setTimeout(this.#start, wait);
  }

  #say(state) {
    this.toggleAttribute("away", state === "away");
    this.#state.textContent = this.getAttribute(`label-${state}`) ?? WORDS[state];
  }

  #show(told) {
    const { state, percent, group, done, total, failed } = told, running = state === "running", known = percent >= 0;
    const count = group ? `${done} / ${total}${failed ? `, ✗ ${failed}` : ""}` : "";
    this.setAttribute("state", state);
    this.#say(state);
    this.#percent.textContent = running && known ? `${percent} %` : "";
    this.#note.textContent = told.error ?? told.note ?? count;
    this.#bar.ariaValueNow = known ? percent : null;
    this.#fill.className = running && !known ? "open" : "";
    this.#fill.style.width = known ? `${percent}%` : "";
    if (JSON.stringify(told) !== JSON.stringify(this.#last)) this.#tell("change", told);
    this.#last = told;
    if (told.ended) this.#end(told);
  }

  #gone(detail) {
    this.setAttribute("state", "gone");
    this.#say("gone");
    this.#note.textContent = detail.message;
    this.#fill.className = "";
    this.#end({ ...detail, state: "gone" });
  }

  #end(detail) {
    this.#over = true;
    this.#shut();
    this.#tell("end", detail);
  }

  #tell(word, detail) { this.dispatchEvent(new CustomEvent(`laneway-${word}`, { detail, bubbles: true })); }
});
