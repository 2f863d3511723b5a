"""Files that are whole or not there, in a folder or an object store; one writer per place.

store.py is the door: a folder or a prefix, and how files are published there; readable.py, what can
be read of it. durable_files.py does it on disks; object_store.py, s3_requests.py,
conditional_writes.py and fetching.py do it over a network. writer_lock.py keeps a second job out;
seal.py lets the file that names all others vouch for them.
"""

from pipelines.storage.hashes import COPY_CHUNK_BYTES, sha256_of_bytes, sha256_of_file
from pipelines.storage.store import Store
from pipelines.storage.tables import ROW_GROUP_ROWS
from pipelines.storage.uris import absolute_uri, is_local

__all__ = [
    "COPY_CHUNK_BYTES",
    "ROW_GROUP_ROWS",
    "Store",
    "absolute_uri",
    "is_local",
    "sha256_of_bytes",
    "sha256_of_file",
]
