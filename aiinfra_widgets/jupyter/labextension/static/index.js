// The two plugins: launcher cards for the labs, and the sidebar of runs. Either works without the other.
import { server } from "./server.js";
import { launcher } from "./launcher.js";
import { sidebar } from "./sidebar.js";

export async function plugins(shared, here) {
  const names = ["apputils", "application", "coreutils", "launcher", "services", "ui-components"];
  const found = await Promise.all([...names.map((n) => shared(`@jupyterlab/${n}`)), shared("@lumino/widgets")]);
  const [apputils, application, coreutils, launching, services, ui, lumino] = found;
  const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: here + "style.css" });
  document.head.appendChild(style);
  const lab = { apputils, ui, lumino, ask: server(services.ServerConnection, coreutils.URLExt) };
  const about = () => (lab.about ??= lab.ask("about"));
  return [
    {
      id: "@aiinfra/lab:launcher",
      description: "Launcher cards that open a copy of a lab.",
      autoStart: true,
      requires: [launching.ILauncher],
      optional: [apputils.ICommandPalette],
      activate: (app, ILauncher, palette) => launcher(app, ILauncher, palette, lab, about),
    },
    {
      id: "@aiinfra/lab:sidebar",
      description: "Runs that go on, with their cost and their controls.",
      autoStart: true,
      optional: [application.ILayoutRestorer],
      activate: (app, restorer) => sidebar(app, restorer, lab, about),
    },
  ];
}
