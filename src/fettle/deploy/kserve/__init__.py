"""What needs KServe's SDK, which is installed apart from everything else: see ``constraints-deploy.txt``."""
