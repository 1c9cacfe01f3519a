"""A credential -> whose it is, on which provider's word, or why it is nobody's.

The guard asks `Identifier`: `present` finds a request's one credential, and each provider is a `method`. API
keys are looked up (`api_key_method`; `api_key`, kept by `api_key_file`), bearer tokens verified (`oidc`; `jwt`:
form in `jws` and `strict`, what they say in `claims`, remembered in `cache`) by keys that a provider publishes
(`jwk`: which serve, `discovery`: where from, `jwks`: over time), or asked about (`introspection`; `client_auth`:
who asks, `flood`: who may). Providers are spoken to by `fetch`. docs/identity.md lists every check.
"""

from gatebook.identity.identifier import Identifier

__all__ = ["Identifier"]
