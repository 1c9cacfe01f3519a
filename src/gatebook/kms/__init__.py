"""A reader's private key that another machine keeps shut: encrypted by it, and decrypted only with its leave.

kms.py       what such a machine has to offer: encrypt and decrypt some bytes
transit.py   HashiCorp Vault's Transit engine, which OpenBao has too
sealed.py    reader.kms, the file that takes reader.key's place

The host keeps ciphertext. Each use of the key asks the KMS, which may say no, and keeps a trail of its own.
Whoever reads has the key in memory while he does.
"""
