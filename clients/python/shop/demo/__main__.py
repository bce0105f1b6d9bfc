"""`python -m shop.demo`."""

from shop.demo.main import app

app(prog_name="python -m shop.demo")
