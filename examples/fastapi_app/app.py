"""The app for servers: ``uvicorn examples.fastapi_app.app:app``, with Braze in the environment.

``BRAZE_API_KEY`` and ``BRAZE_REST_ENDPOINT`` are needed. ``PUBLIC_URL`` is where Braze reaches this
app; without it exports are looked for from time to time. One process only: its exports are kept
in memory.
"""

import os
import sys

from braze_export import InputError
from examples.fastapi_app.backend import make_app, make_client

try:
    # Opens nothing. The lifespan would find the same, but servers print it under a traceback.
    make_client()
    app = make_app(public_url=os.environ.get("PUBLIC_URL"))
except InputError as error:
    sys.exit(str(error))
