"""From a budget to a model, a batch, a layout, days and money."""
