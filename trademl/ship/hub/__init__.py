"""The hub: where signed revisions are published, approved, and pulled from.

objects   what a store of objects must do, and a folder that does it
s3        the same on S3-compatible storage (Cloudflare R2, or any other with conditional writes)
pointer   the signed record that says which revision a channel names
hub       push, promote, roll back, log, verify, collect
pull      the read-only side: from a channel into a local store
"""
