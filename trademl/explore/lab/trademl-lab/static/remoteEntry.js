// A JupyterLab extension without a build: it runs an explorer's cells when its notebook is opened, so that its figures are there at once.
// `trademl lab` is the only one to load it; an explorer is a notebook of nbs/explore whose metadata say so.
(() => {
  const begun = new WeakSet();

  async function runExplorer(app, panel) {
    if (!panel || !panel.context || !panel.sessionContext || begun.has(panel)) return;
    if (!/(^|\/)nbs\/explore\/[^/]+\.ipynb$/.test(panel.context.path)) return;
    begun.add(panel);
    await panel.context.ready;
    await panel.sessionContext.ready;
    await panel.revealed;
    const cells = panel.content.widgets.filter((cell) => cell.model.type === "code");
    if (cells.some((cell) => cell.model.executionCount)) return; // it has run, in a kernel that lives on
    if (app.shell.currentWidget === panel) await app.commands.execute("notebook:run-all-cells");
    else begun.delete(panel);
  }

  const plugin = {
    id: "trademl-lab:explorers",
    autoStart: true,
    activate: (app) => {
      app.restored.then(() => runExplorer(app, app.shell.currentWidget));
      app.shell.currentChanged.connect((_, change) => runExplorer(app, change.newValue));
    },
  };

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB["trademl-lab"] = { init: () => {}, get: async () => () => ({ __esModule: true, default: plugin }) };
})();
