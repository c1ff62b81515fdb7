// One run in the sidebar. Its parts are made once and filled in again at every look, so that focus and pointer stay where they are.
import { element } from "./sidebar.js";

export function runCard(lab, app, t, id, look) {
  const node = element("section", "aiinfra-run");
  node.dataset.run = id;
  const state = element("span", "aiinfra-run-state");
  const title = element("span", "aiinfra-run-title");
  const head = element("div", "aiinfra-run-head");
  head.append(title, state);
  const about = element("div", "aiinfra-run-about");
  const message = element("div", "aiinfra-run-message");
  const limit = element("div", "aiinfra-run-limit");
  const costs = element("dl", "aiinfra-run-costs");
  const nodes = element("span", "aiinfra-run-count");
  const answer = element("div", "aiinfra-run-answer");
  answer.setAttribute("role", "status");
  let run = {};
  let asking = false;

  const button = (text, title, what) => {
    const made = element("button", "aiinfra-run-button", text);
    made.type = "button";
    made.title = title;
    if (title !== text) made.setAttribute("aria-label", title);
    made.addEventListener("click", what);
    return made;
  };
  const say = (text, kind) => { answer.textContent = text; answer.dataset.kind = kind; };
  const ask = async (...words) => {
    asking = true;
    say(t("Asked ..."), "wait");
    draw(run);
    try {
      const found = await lab.ask(`runs/${id}/ask`, { words });
      if (found.kind === "applied") say(t("Done at {tick} {at}.", { tick: run.tick, at: found.tick }), "good");
      else if (found.kind === "refused") say(t("Refused: {reason}", { reason: found.reason }), "bad");
      else say(t("Asked, not decided yet."), "wait");
    } catch (error) {
      say(error.message, "bad");
    }
    asking = false;
    draw(run);
    look();
  };
  const fewer = button("\u2212", t("One node less"), () => ask(`nodes=${run.nodes - 1}`));
  const more = button("+", t("One node more"), () => ask(`nodes=${run.nodes + 1}`));
  const pause = button(t("Pause"), t("Pause"), () => ask(run.state === "paused" ? "resume" : "pause"));
  const stop = button(t("Stop"), t("Stop"), () => ask("stop"));
  const folder = button(t("Open folder"), t("Open folder"), () => openFolder(lab, app, t, id).catch((e) => say(e.message, "bad")));
  const size = element("div", "aiinfra-run-size");
  size.append(element("span", "", t("Nodes")), fewer, nodes, more);
  const buttons = element("div", "aiinfra-run-buttons");
  buttons.append(size, pause, stop, folder);
  node.append(head, about, message, costs, limit, buttons, answer);

  const put = (where, text) => { if (where.textContent !== text) where.textContent = text; };
  const draw = (next) => {
    run = next;
    put(title, run.title);
    put(state, t(run.state));
    node.dataset.state = run.state;
    node.setAttribute("aria-label", `${run.title}, ${t(run.state)}`);
    put(about, [run.about, run.note, `${run.tick} ${run.ticks}`, run.id].filter(Boolean).join(" \u00b7 "));
    about.title = run.path;
    put(message, run.final && run.next ? `${run.message} \u2013 ${run.next}` : run.message);
    put(nodes, String(run.nodes));
    put(limit, run.left_s == null ? "" : t("Ends in {time} at the administrator's limit.", { time: time(run.left_s) }));
    drawCosts(costs, run.costs);
    put(pause, run.state === "paused" ? t("Continue") : t("Pause"));
    pause.title = pause.textContent;
    for (const one of [size, pause, stop]) one.hidden = run.final;
    const busy = asking || run.final;
    fewer.disabled = busy || run.nodes <= 1;
    more.disabled = busy || run.nodes >= run.most_nodes;
    more.title = run.nodes >= run.most_nodes ? t("At most {most} nodes: {why}", { most: run.most_nodes, why: run.most_why }) : t("One node more");
    pause.disabled = stop.disabled = busy || run.state === "starting" || run.state === "new";
  };
  return { node, draw };
}

const time = (seconds) => (seconds >= 120 ? `${Math.floor(seconds / 60)} min` : `${Math.ceil(seconds)} s`);

function drawCosts(list, costs) {
  const text = costs.map((c) => c.text).join();
  if (list.dataset.text === text) return;
  list.dataset.text = text;
  list.replaceChildren(...costs.map((cost) => {
    const one = element("div");
    one.title = `${cost.label}: ${cost.method} (${cost.how})`;
    one.append(element("dt", "", cost.label), element("dd", "", cost.text), element("small", "", cost.method));
    return one;
  }));
}

async function openFolder(lab, app, t, id) {
  const { path, folder, why } = await lab.ask(`runs/${id}/folder`, {});
  if (path === null) {
    lab.apputils.Notification.info(`${t("The folder is {folder}", { folder })} (${why})`, { autoClose: false });
    return;
  }
  await app.commands.execute("filebrowser:open-path", { path });
  app.shell.activateById("filebrowser");
}
