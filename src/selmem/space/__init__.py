"""What stands behind the demo page: plain functions from text and tables to records and HTML.

Nothing here imports gradio; `spaces/reconstruction/app.py` holds the widgets.
"""
