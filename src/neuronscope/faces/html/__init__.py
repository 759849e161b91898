"""A page as one HTML file that needs nothing else: no network, no server, no other file."""

from neuronscope.faces.html.render import render_index, render_page, write_index, write_report

__all__ = ["render_index", "render_page", "write_index", "write_report"]
