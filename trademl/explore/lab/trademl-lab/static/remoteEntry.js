// A JupyterLab extension without a build: it runs an explorer's cells when its notebook is opened, so that its figures are there at once.
// `trademl lab` is the only one to load it. While the first page is looked at, it gets plotly.js ready.
(() => {
  const begun = new WeakSet();

  function loadPlotly() {
    if (window.Plotly || window.trademlPlotly) return;
    const about = JSON.parse(document.getElementById("jupyter-config-data").textContent);
    window.trademlPlotly = new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `${about.baseUrl}static/plotly.min.js`; // `trademl lab` serves it
      script.onload = () => resolve(window.Plotly);
      script.onerror = reject;
      document.head.append(script);
    });
    window.trademlPlotly.catch(() => {}); // a view then asks its kernel for it
  }

  // A kernel that lives on still has the figures; a notebook that was saved under an earlier server has only the counts of its cells.
  async function hasRun(kernel) {
    const asked = { code: "", silent: true, store_history: false, user_expressions: { next: "get_ipython().execution_count" } };
    const { content } = await kernel.requestExecute(asked).done;
    return content.user_expressions.next.data["text/plain"] !== "1";
  }

  async function runExplorer(app, panel) {
    if (!panel || !panel.context || !panel.sessionContext || begun.has(panel)) return;
    if (!/(^|\/)nbs\/explore\/[^/]+\.ipynb$/.test(panel.context.path)) return;
    begun.add(panel);
    await panel.context.ready;
    await panel.sessionContext.ready;
    await panel.revealed;
    const cells = panel.content.widgets.filter((cell) => cell.model.type === "code");
    if (cells.some((cell) => cell.model.executionCount) && (await hasRun(panel.sessionContext.session.kernel))) return;
    if (app.shell.currentWidget === panel) await app.commands.execute("notebook:run-all-cells");
    else begun.delete(panel);
  }

  const plugin = {
    id: "trademl-lab:explorers",
    autoStart: true,
    activate: (app) => {
      app.restored.then(() => runExplorer(app, app.shell.currentWidget)).then(loadPlotly);
      app.shell.currentChanged.connect((_, change) => runExplorer(app, change.newValue));
    },
  };

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB["trademl-lab"] = { init: () => {}, get: async () => () => ({ __esModule: true, default: plugin }) };
})();
