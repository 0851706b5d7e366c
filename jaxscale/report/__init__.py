"""Results for people: terminal tables, one-file HTML, SVG and traces."""
