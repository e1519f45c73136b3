"""Parts of `tools/app.py`: what it does with ptinv, its settings as text, and its page."""
