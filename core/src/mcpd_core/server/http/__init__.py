"""Streamable HTTP: uvicorn in front, the SDK's handler kernel behind, both protocol eras.

`listener` binds and runs uvicorn, `app` routes and guards, `envelopes` serves the era of 2026-07-28
(each request describes its client), `handshakes` the earlier ones (sessions), `exchange` writes one
answer, as JSON or as a stream of events, `peers` decides who a client is.
"""
