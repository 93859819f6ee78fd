"""The rooms behind `nbs/explore`: each explorer is a few functions that return plotly figures, and a panel of controls that calls them.

`labels`, `shap`, `risk`, `backtest`, `trades` and `start` hold one explorer each (what `labels` draws lies in `label_room`); `panel`
binds controls to figures, `view` shows a figure in a notebook, `data` brings the bars and `revision` the revision to explore. Nothing
here judges or writes.
"""
