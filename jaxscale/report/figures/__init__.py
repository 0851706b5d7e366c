"""Plotly figures as plain data, one small function each; none knows which report it stands in."""
