package auth_test

import (
	"testing"

	"github.com/tapwire/shadowcat-cluster/proxy/auth"
)

// BenchmarkAuthenticate tells what a request pays for knowing whom it is from: with a token that was seen before, and with one that
// was not, by algorithm.
func BenchmarkAuthenticate(b *testing.B) {
	ed := newKey("ed", "EdDSA")
	g := gate(b, func(c *auth.Config) { c.Transport = serving(keySet(rsaKey(), ecKey(), ed)) })
	b.Run("seen before", func(b *testing.B) {
		r := bearing(rsaKey().token(nil))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := g.Authenticate(r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("seen before, parallel", func(b *testing.B) {
		token := rsaKey().token(nil)
		b.RunParallel(func(pb *testing.PB) {
			r := bearing(token)
			for pb.Next() {
				if _, err := g.Authenticate(r); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
	for _, key := range []signingKey{rsaKey(), ecKey(), ed} {
		b.Run("new "+key.algorithm, func(b *testing.B) {
			r := bearing(key.token(nil))
			b.ReportAllocs()
			for b.Loop() {
				auth.Forget(g)
				if _, err := g.Authenticate(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("forged", func(b *testing.B) {
		r := bearing(newKey("ec", "ES256").token(nil))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := g.Authenticate(r); err == nil {
				b.Fatal("a forged token is good")
			}
		}
	})
}
