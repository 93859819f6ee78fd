"""The hub: where signed revisions are published, approved, and pulled from.

objects   what a store of objects must do, and a folder that does it
s3        the same on S3-compatible storage (Cloudflare R2, or any other with conditional writes)
pointer   the signed record that says which revision a channel names
room      what lies there of one line, and the reading of it
log       a channel's history
verify    everything of a line, read and proven
collect   what nobody names and is old enough goes
hub       push, promote, roll back
pull      the read-only side: from a channel into a local store
kept      what a pull that was cut off keeps
"""
