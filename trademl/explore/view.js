// Draws a plotly figure and draws it again when the kernel sends another. plotly.js comes from the kernel, once a page: no network.
// Colours of the report's light style are exchanged while JupyterLab's theme is dark.

function isDark() {
  return document.body.dataset.jpThemeLight === "false";
}

function plotly(model) {
  if (!window.trademlPlotly) {
    window.trademlPlotly = new Promise((resolve, reject) => {
      if (window.Plotly) return resolve(window.Plotly);
      model.on("msg:custom", (message, buffers) => {
        if (message.plotly === undefined || window.Plotly) return;
        const script = document.createElement("script");
        script.src = URL.createObjectURL(new Blob([buffers[0]], { type: "text/javascript" }));
        script.onload = () => resolve(window.Plotly);
        script.onerror = reject;
        document.head.append(script);
      });
      model.send({ want: "plotly" });
    });
  }
  return window.trademlPlotly;
}

async function render({ model, el }) {
  const box = document.createElement("div");
  box.className = "trademl-figure";
  box.style.minHeight = "120px";
  el.append(box);
  const Plotly = await plotly(model);
  let asked = 0;
  const draw = async () => {
    const mine = ++asked;
    let text = model.get("figure");
    if (!text) return;
    if (isDark()) for (const [light, dark] of Object.entries(model.get("dark"))) text = text.replaceAll(light, dark);
    const figure = JSON.parse(text);
    if (el.clientWidth > 0) figure.layout.width = el.clientWidth;
    await Plotly.react(box, figure.data, figure.layout, { displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] });
    if (mine === asked) box.dataset.drawn = model.get("serial");
  };
  model.on("change:figure", draw);
  const theme = new MutationObserver(draw);
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  const size = new ResizeObserver(() => {
    if (el.clientWidth > 0 && box.layout && Math.abs(box.layout.width - el.clientWidth) > 2) Plotly.relayout(box, { width: el.clientWidth });
  });
  size.observe(el);
  await draw();
  return () => {
    theme.disconnect();
    size.disconnect();
    Plotly.purge(box);
  };
}

export default { render };
