// Package auth finds out who a request is from, so that a session can belong to somebody.
//
// A [Gate] works in one of three modes:
//
//   - [ModeNone]: everybody is nobody.
//   - [ModeHeader]: a proxy in front names the client in a header. The header counts only when the TCP connection itself comes
//     from one of the configured networks; what a request claims about its way is never looked at.
//   - [ModeJWT]: the client shows a signed token as Authorization: Bearer (RFC 6750), which an authorization server made.
//
// Either way the result is an [Identity]: a digest that owns sessions, and the moment until which it may be believed.
//
// # A token's way
//
//	Authenticate            one header, at most 8 KiB, three parts       (bearer.go)
//	  seen before?          by its SHA-256, until it expires             (verified.go)
//	  algorithm allowed?    before any key is looked at                  (token.go)
//	  key                   by kid and algorithm, from the issuer's set  (keyset.go)
//	  signature             then, and only then, claims are read         (token.go)
//	  claims                issuer, audience, times, subject, scopes     (claims.go)
//
// # Guarantees
//
//   - Only keys of the configured issuer verify tokens. What a token says about keys (jwk, jku, x5c, x5u) is never used; an
//     extension that it calls critical makes it invalid.
//   - Only asymmetric algorithms exist here, and a key verifies only tokens of its own kind: none and HS256 have no meaning.
//   - Without keys nobody gets in: Authenticate answers [ErrKeysUnavailable]. The last good keys go on being used for at most
//     Config.JWKSStale after they were fetched.
//   - Strangers cannot make the key endpoint busy: however many tokens name unknown keys, a replica asks one at a time, at
//     most once in five seconds, each time bounded in time and size.
//   - Errors and logs hold no token, no claim, and no URL's user, password or query.
//
// Tokens that are bound to a key of the client (RFC 9449, RFC 8705) are refused: accepting one without its proof would make a
// stolen copy as good as the original.
package auth
