"""The page that people look at: the answer of a trace as a graph, tables and playing clips."""
