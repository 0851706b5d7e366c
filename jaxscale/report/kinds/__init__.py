"""The kinds of report, one module each with one function that lays a `Page` out; nothing else knows them."""
