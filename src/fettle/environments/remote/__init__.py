"""Environments over gRPC: a server of them, and a suite whose environments run there. Needs the extra ``remote``."""
