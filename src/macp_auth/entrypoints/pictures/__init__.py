"""Pictures of keys over time, as SVG and as text."""
