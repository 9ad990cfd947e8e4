"""The names of the files in a run directory; only ``rundir`` and ``verification`` know them."""

MANIFEST, CORPUS, HELDOUT, CANARIES = "manifest.json", "corpus.txt", "heldout.txt", "canaries.json"
WEIGHTS, MODEL, CHECKPOINT = "model.safetensors", "model.json", "checkpoint.safetensors"
MEASUREMENTS, UNLEARNED, UNLEARNING = "measurements", "unlearned", "unlearning.json"
SHARDS, CORRECTED, CURVATURE = "shards", "-corrected", "curvature.safetensors"
LOCK, STAGING, PARTS = ".lock", ".staging", ".parts"
