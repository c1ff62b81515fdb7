// What JupyterLab loads first. Written by hand and shipped as it is: the contract of a prebuilt extension is two functions,
// and the packages that we use are JupyterLab's own, taken from the scope that it hands over. So nothing needs node to build.
(() => {
  const here = document.currentScript.src.replace(/[^/]*$/, "");
  let scope = {};

  // A package of JupyterLab by name; it offers each of them in one version.
  const shared = async (name) => {
    const versions = Object.values(scope[name] ?? {});
    if (!versions.length) throw new Error(`JupyterLab shares no ${name}; @aiinfra/lab needs JupyterLab 4`);
    return (await versions[versions.length - 1].get())();
  };

  window._JUPYTERLAB = window._JUPYTERLAB ?? {};
  window._JUPYTERLAB["@aiinfra/lab"] = {
    init: (given) => { scope = given; },
    get: async (module) => {
      if (module !== "./extension") throw new Error(`@aiinfra/lab has no ${module}`);
      const { plugins } = await import(here + "index.js");
      const found = { __esModule: true, default: await plugins(shared, here) };
      return () => found;
    },
  };
})();
