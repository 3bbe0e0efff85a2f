"""How much is worked on at once. Code that loads torch cuts its work by these numbers, plans count memory by them."""

# A piece of the rows between two products of zolite's own decoder, at most. Weights that must be expanded once more for
# each piece get larger ones. The MLP's pieces are multiples of a product's tile, in rows.
PIECE_BYTES, PIECE_BYTES_EXPANDED = 128 << 20, 256 << 20
TILE_ROWS = 128

EXPERT_TOKENS = 1024  # that go through one routed expert at once

CHUNK_NUMBERS = 2**21  # float32 logits held at once: 8 MiB
OWN_LOGITS = 2**26  # logits of a model's own forward, where losses are made of them: 128 MiB in 16 bits
COLUMNS = 256  # words of the vocabulary that are taken together, at least: what a matrix unit likes

BUCKET_TOKENS = 8  # lengths that batches are padded to are multiples of it
EVAL_TOKENS = 4096  # of an evaluation's forward: large enough to keep a device busy, small beside the weights
BASIS_TOKENS = (17, 64)  # sequences and their tokens that frozen bases are found on
