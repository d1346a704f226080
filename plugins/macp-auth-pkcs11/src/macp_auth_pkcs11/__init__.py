"""A signer for macp-auth: keys in a PKCS#11 token."""
