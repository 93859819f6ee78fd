"""The rooms behind `nbs/explore`: each explorer is a few functions that return plotly figures, and a panel of controls that calls them.

`labels`, `risk`, `backtest`, `shap`, `trades` and `start` hold one explorer each; `panel` binds controls to figures, `view` shows a
figure in a notebook, `data` brings the bars to explore and `revision` the revision. Nothing here judges or writes.
"""
