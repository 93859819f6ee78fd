// Draws a plotly figure and draws it again when the kernel sends another. plotly.js comes from the server of `trademl lab`, which loads it
// early, or from the kernel, once a page: no network.
// Colours of a figure are exchanged for those of JupyterLab's theme, light or dark, and again when the theme changes.

function theme() {
  return document.body.dataset.jpThemeLight === "false" ? "dark" : "light";
}

function fromKernel(model) {
  return new Promise((resolve, reject) => {
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

async function plotly(model) {
  if (!window.trademlPlotly) window.trademlPlotly = fromKernel(model);
  try {
    return await window.trademlPlotly;
  } catch {
    return (window.trademlPlotly = fromKernel(model));
  }
}

// Pixels by which the legend reaches into the title: how many lines it takes hangs on the width.
function overlap(box) {
  const of = (names) => [...box.querySelectorAll(names)].map((text) => text.getBoundingClientRect());
  const low = Math.max(...of(".gtitle, .gtitle-subtitle").map((at) => at.bottom));
  const top = Math.min(...of(".legendtext").map((at) => at.top));
  return Math.max(0, low + 4 - top);
}

async function render({ model, el }) {
  const box = document.createElement("div");
  box.className = "trademl-figure";
  box.style.minHeight = "120px";
  el.append(box);
  const Plotly = await plotly(model);
  let asked = 0;
  let width = 0; // of the figure on the screen; 0: none, or one that is out of date
  const draw = async () => {
    const mine = ++asked;
    let text = model.get("figure");
    width = el.isConnected ? el.clientWidth : 0;
    if (!text || !width) return; // hidden, or not in the page yet: text could not be measured
    for (const [colour, own] of Object.entries(model.get("colours")[theme()])) text = text.replaceAll(colour, own);
    const figure = JSON.parse(text);
    figure.layout.width = width;
    await Plotly.react(box, figure.data, figure.layout, { displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] });
    const over = overlap(box);
    if (over && mine === asked) await Plotly.relayout(box, { "margin.t": box._fullLayout._size.t + over });
    if (mine === asked) box.dataset.drawn = model.get("serial");
  };
  model.on("change:figure", draw);
  const themes = new MutationObserver(draw);
  themes.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  const size = new ResizeObserver(() => {
    if (Math.abs(el.clientWidth - width) > 2) draw();
  });
  size.observe(el);
  await draw();
  return () => {
    themes.disconnect();
    size.disconnect();
    Plotly.purge(box);
  };
}

export default { render };
