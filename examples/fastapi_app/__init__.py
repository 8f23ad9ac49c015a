"""A small backend on Braze: look-ups, one and many, and exports of segments.

``python -m examples.fastapi_app`` runs it, without an account against a local Braze. It asks
nobody who he is: an app of your own does, before it gives profiles away.
"""
