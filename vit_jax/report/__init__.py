"""The page of a sweep: tables in the layout of arXiv 2010.11929, curves and mistakes, drawn from the files of its runs."""
