"""What is in deploy/: the image built and run, the chart rendered, judged, and its environment served."""
