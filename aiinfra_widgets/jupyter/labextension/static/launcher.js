// Launcher cards, one for each lab. A click opens your own copy; it is made once, and never written over.
import { speaker } from "./server.js";
import { drawing } from "./icons.js";

const OPEN = "aiinfra:open-lab";

export async function launcher(app, ILauncher, palette, lab, about) {
  const { labs, words } = await about();
  const t = speaker(words);
  const category = t("AI infrastructure lab");
  const byName = Object.fromEntries(labs.map((card) => [card.name, card]));
  const icons = Object.fromEntries(labs.map((card) => [card.name, new lab.ui.LabIcon({
    name: `aiinfra:${card.name.replace(/\W+/g, "-")}`, svgstr: drawing(card.name),
  })]));

  const open = async ({ name, fresh }) => {
    const found = await lab.ask("labs", { name, fresh: fresh === true });
    const widget = await app.commands.execute("docmanager:open", { path: found.path, factory: "Notebook" });
    if (found.made) {
      lab.apputils.Notification.success(t("Copied to {path}", { path: found.path }), { autoClose: 4000 });
    } else {
      const again = { label: t("Start over with a fresh copy"), callback: () => void run({ name, fresh: true }) };
      lab.apputils.Notification.info(t("Your copy of the lab is open."), { autoClose: 6000, actions: [again] });
    }
    return widget; // the launcher gives its place to it, as with its other cards
  };
  const run = (args) => open(args).catch((error) => {
    lab.apputils.Notification.error(error.message, { autoClose: false });
    return null;
  });

  app.commands.addCommand(OPEN, {
    label: ({ name, fresh, card }) => {
      const { title, sentence } = byName[name] ?? { title: name, sentence: "" };
      if (card) return `${title.split(": ")[0]}\n${sentence}`; // the whole title is in the caption
      return fresh ? `${t("Fresh copy of a lab")}: ${title}` : title;
    },
    caption: ({ name, fresh }) => {
      const { title, sentence, minutes } = byName[name] ?? { title: name, sentence: "", minutes: "" };
      return fresh ? t("A fresh copy of {title}; yours stays as it is", { title }) : `${title}. ${sentence} (${minutes})`;
    },
    icon: ({ name, card }) => (card ? icons[name] : undefined),
    execute: run,
  });
  labs.forEach(({ name }, rank) => {
    ILauncher.add({ command: OPEN, category, rank, args: { name, card: true } });
    palette?.addItem({ command: OPEN, category, args: { name } });
    palette?.addItem({ command: OPEN, category, args: { name, fresh: true } });
  });
  // JupyterLab marks a card with its category only, and that is translated: so its style is written here.
  const mark = document.createElement("style");
  mark.textContent = cardStyle(`.jp-LauncherCard[data-category=${JSON.stringify(category)}]`);
  document.head.appendChild(mark);
}

// A wide card: the icon beside a heading and one sentence. The labs stand first, for whoever opened this came for them.
const cardStyle = (card) => `
.jp-Launcher-content { display: flex; flex-direction: column; }
.jp-Launcher-section { order: 1; }
.jp-Launcher-section:has(${card}) { order: 0; }
${card} { box-sizing: border-box; width: 270px; min-height: 104px; margin: 4px; flex-direction: row; align-items: flex-start; padding: 12px 8px 12px 6px; box-shadow: none;
  border-radius: 6px; }
${card}:hover { box-shadow: var(--jp-elevation-z2); }
${card} .jp-LauncherCard-icon { width: 36px; height: 34px; flex: none; }
${card} .jp-LauncherCard-icon svg { width: 28px; height: 28px; }
${card} .jp-LauncherCard-label { padding: 0 0 0 4px; min-height: 0; }
${card} .jp-LauncherCard-label p { white-space: pre-line; text-align: left; line-height: 1.4; word-break: normal;
  color: var(--jp-ui-font-color1); font-size: 12px; }
${card} .jp-LauncherCard-label p::first-line { font-weight: 600; font-size: 13px; color: var(--jp-ui-font-color0); }`;
