// The sidebar: runs that go on and the newest ended ones. It asks the server once a second, and only while somebody can see it.
import { speaker } from "./server.js";
import { TAB } from "./icons.js";
import { runCard } from "./run_card.js";

const EVERY_MS = 1000;
export const ID = "aiinfra-runs";

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

export async function sidebar(app, restorer, lab, about) {
  const icon = new lab.ui.LabIcon({ name: "aiinfra:runs", svgstr: TAB });
  const { words, limits } = await about().catch((error) => ({ words: {}, limits: [], error }));
  const t = speaker(words);
  const panel = panelOf(lab, app, t, limits);
  panel.id = ID;
  panel.title.icon = icon;
  panel.title.caption = `${t("AI infrastructure lab")}: ${t("Runs")}`;
  app.shell.add(panel, "left", { rank: 320, type: "AI infrastructure lab" });
  restorer?.add(panel, ID);
  app.commands.addCommand("aiinfra:show-runs", {
    label: `${t("AI infrastructure lab")}: ${t("Runs")}`,
    execute: () => app.shell.activateById(ID),
  });
}

function panelOf(lab, app, t, limits) {
  class RunsPanel extends lab.lumino.Widget {
    constructor() {
      super();
      this.addClass("aiinfra-runs");
      this.cards = new Map();
      this.timer = 0;
      this.going = element("div", "aiinfra-runs-list");
      this.ended = element("div", "aiinfra-runs-list");
      this.empty = element("p", "aiinfra-runs-note");
      this.empty.append(element("strong", "", t("Nothing runs.")), " ",
        t("Open a lab and press Run, or start a run in a terminal: aiinfra run training --nodes 2"));
      this.trouble = element("p", "aiinfra-runs-trouble");
      this.trouble.setAttribute("role", "status");
      this.limits = element("p", "aiinfra-runs-note", limits.join(" "));
      this.endedTitle = element("h3", "", t("Ended"));
      this.node.append(element("h2", "", t("AI infrastructure lab")), this.trouble, element("h3", "", t("Running")), this.empty,
        this.going, this.endedTitle, this.ended, this.limits);
      document.addEventListener("visibilitychange", () => this.look());
    }

    get seen() { return this.isVisible && document.visibilityState === "visible"; }

    onAfterShow() { this.look(); }

    onAfterHide() { this.rest(); }

    rest() { clearTimeout(this.timer); this.timer = 0; }

    async look() {
      this.rest();
      if (!this.seen || this.looking) return;
      this.looking = true;
      try {
        this.draw((await lab.ask("runs")).runs);
        this.trouble.textContent = "";
      } catch (error) {
        this.trouble.textContent = t("The server does not answer: {reason}", { reason: error.message });
      }
      this.looking = false;
      if (this.seen) this.timer = setTimeout(() => this.look(), EVERY_MS);
    }

    draw(runs) {
      for (const [id, card] of this.cards) {
        if (!runs.some((run) => run.id === id)) { card.node.remove(); this.cards.delete(id); }
      }
      let before = { true: null, false: null };
      for (const run of runs) {
        let card = this.cards.get(run.id);
        if (!card) this.cards.set(run.id, (card = runCard(lab, app, t, run.id, () => this.look())));
        card.draw(run);
        const list = run.final ? this.ended : this.going;
        const wanted = before[run.final] ? before[run.final].nextSibling : list.firstChild;
        if (card.node !== wanted) list.insertBefore(card.node, wanted); // moving it would take the focus from a button
        before[run.final] = card.node;
      }
      this.empty.hidden = runs.some((run) => !run.final);
      this.endedTitle.hidden = !runs.some((run) => run.final);
    }
  }
  return new RunsPanel();
}
