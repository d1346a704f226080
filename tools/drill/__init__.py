"""The rotation drill: keys rotate under load, and real verifiers judge every token until it ends.

``scenario`` says how long everything takes, ``keys_file`` changes the keys, ``load`` mints, ``desk``
hands each token to a verifier again and again, ``judges`` are the verifiers' own processes, ``ledger``
keeps what came of it, and ``drill`` runs all that together.
"""
